"""The `runs watch` command."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.live import Live

import rollforward as rf
from rollforward.cli.identifiers import experiment_named, experiment_names, run_id
from rollforward.cli.options import DEFAULTS, Options
from rollforward.cli.output.documents import milliseconds, plain_run
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import document, enum_name, labels, moment, number, plain, print_json_line, safe
from rollforward.cli.tracking.run_tables import latest, run_details, runs_table, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from rollforward import v1

_REFRESH_SECONDS: Final = 0.25
_CODES: Final = {"RUN_STATUS_FINISHED": 0, "RUN_STATUS_FAILED": 1, "RUN_STATUS_KILLED": 1}


def watch(
    run: Annotated[
        str,
        Parameter(
            name="RUN",
            help="Watch a run until it ends; by id, a unique prefix of it, or a unique name.",
            show_default=False,
        ),
    ] = "",
    /,
    *,
    experiment: Annotated[
        str | None,
        Parameter(metavar="EXPERIMENT", help="Watch all runs of an experiment until Ctrl-C; by name or id:NUMBER."),
    ] = None,
    after: Annotated[
        int | None,
        Parameter(
            metavar="POSITION", validator=Number(gte=0), help="Start with the events after this position of the log."
        ),
    ] = None,
    points: Annotated[
        bool, Parameter(name="--metrics", negative="--no-metrics", show_default=False, help="Include metric points.")
    ] = True,
    options: Options = DEFAULTS,
) -> int:
    """Print the current state of a run or of an experiment's runs, then every event.

    On a terminal, this is a live table, else a line per event. With -o json, each line is an object with
    either `snapshot` or `change`. With --after, it is always lines, of the events after that position, without the
    current state. A watch of one run ends with the run: exit code 0 if it finished, 1 if it failed or was killed.
    """
    if bool(run) == (experiment is not None):
        raise UsageError("expected either RUN or --experiment")
    options.connect()
    run = run and run_id(run)
    try:
        followed = rf.watch_runs(
            run or None,
            experiment=None if experiment is None else experiment_named(experiment),
            from_position=after,
            metrics=points,
        )
        with followed:
            # With --after there is no current state to draw.
            if sys.stdout.isatty() and not options.json and after is None:
                return _draw(followed, run)
            return _print(followed, run, options)
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of a watch.
        return 0


def _print(followed: rf.RunsWatch, run_id: str, options: Options) -> int:
    runs = {run.run_id: run for run in followed.runs}
    for run in runs.values():
        _print_step("snapshot", plain_run(run), _current_state(run), options)
    if (code := _code(runs, run_id)) is not None:
        return code
    for change in followed:
        rf.apply_change(runs, change)
        _print_step("change", _plain_change(change), _line(change, runs), options)
        if change.HasField("finished") and (code := _code(runs, run_id, change)) is not None:
            return code
    return 0


def _draw(followed: rf.RunsWatch, run_id: str) -> int:
    """Redraw a table when runs change, a few times a second at most."""
    runs = {run.run_id: run for run in followed.runs}
    names = experiment_names([run.experiment_id for run in runs.values()])
    events: queue.SimpleQueue[v1.RunChange | Exception] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(followed, events), daemon=True).start()
    with Live(_table(runs, run_id, names), console=Console(highlight=False), auto_refresh=False) as live:
        while (code := _code(runs, run_id)) is None:
            changes = [events.get()]
            time.sleep(_REFRESH_SECONDS)
            while not events.empty():
                changes.append(events.get())
            for change in changes:
                if isinstance(change, Exception):
                    raise change
                rf.apply_change(runs, change)
            live.update(_table(runs, run_id, names), refresh=True)
    return code


def _receive(followed: rf.RunsWatch, events: queue.SimpleQueue[v1.RunChange | Exception]) -> None:
    try:
        for change in followed:
            events.put(change)
    except Exception as error:  # noqa: BLE001 - raised by the thread that draws the table
        events.put(error)


def _table(runs: dict[str, v1.Run], run_id: str, names: Mapping[str, str]) -> RenderableType:
    if run_id in runs:
        return run_details(runs[run_id], names.get(runs[run_id].experiment_id, ""))
    # The newest runs first, as many as fit the screen.
    budget = max(1, Console().height - 2)
    return runs_table(list(runs.values())[: -budget - 1 : -1], names)


def _code(runs: dict[str, v1.Run], run_id: str, change: v1.RunChange | None = None) -> int | None:
    """Return the exit code once the watched run has ended."""
    if not run_id:
        return None
    status = change.finished.status if change else runs[run_id].status if run_id in runs else None
    return None if status is None else _CODES.get(rf.v1.RunStatus.Name(status))


def _print_step(kind: str, step: Any, line: str, options: Options) -> None:
    if options.json:
        print_json_line({kind: step})
    else:
        print(safe(line), flush=True)


def _plain_change(change: v1.RunChange) -> Any:
    fields = plain(change)
    if change.HasField("metrics"):
        # Numbers in place of packed bytes.
        fields["metrics"] = {key: _plain_points(points) for key, points in rf.points_of(change).items()}
    return fields


def _plain_points(points: rf.MetricHistory) -> dict[str, Any]:
    times = [milliseconds(at) for at in points.timestamps]
    return {"steps": document(points.steps), "times": times, "values": document(points.values)}


def _current_state(run: v1.Run) -> str:
    return f"{moment(run.start_time)}  {run.run_id} {run.name} is {status_of(run)}  {latest(run)}".rstrip()


def _line(change: v1.RunChange, runs: dict[str, v1.Run]) -> str:
    name = runs[change.run_id].name if change.run_id in runs else ""
    head = " ".join(part for part in (change.run_id, name) if part)
    return f"{moment(change.time)}  position {change.position}  {head}  {_describe(change)}".rstrip()


def _describe(change: v1.RunChange) -> str:
    kind = change.WhichOneof("event") or "changed"
    return _DESCRIPTIONS[kind](change) if kind in _DESCRIPTIONS else f"{kind} by {change.actor}"


def _logged(change: v1.RunChange) -> str:
    removed = [f"-{key}" for key in change.logged.removed_tags]
    return " ".join(part for part in (labels(change.logged.params), labels(change.logged.tags), *removed) if part)


_DESCRIPTIONS: Final[Mapping[str, Callable[[v1.RunChange], str]]] = {
    "metrics": lambda change: " ".join(_points(key, points) for key, points in rf.points_of(change).items()),
    "logged": _logged,
    "finished": lambda change: enum_name(rf.v1.RunStatus.DESCRIPTOR, change.finished.status) or "",
    "artifact": lambda change: f"artifact {change.artifact.path or '/'} {change.artifact.digest}",
    "renamed": lambda change: f"renamed, was {change.renamed.from_name}",
    "inputs": lambda change: "reads " + " ".join(one.dataset.name for one in change.inputs.inputs),
    "outputs": lambda change: "produced " + " ".join(one.model_id for one in change.outputs.outputs),
}


def _points(key: str, points: rf.MetricHistory) -> str:
    more = f" ({len(points.values)} points)" if len(points.values) > 1 else ""
    return f"{key}={number(points.values[-1])} at step {points.steps[-1]}{more}"
