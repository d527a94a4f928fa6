"""The `audit` commands: list and export recorded events, recompute gate results."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from cyclopts import App, Parameter
from cyclopts.validators import Number

import rollforward as rf
from rollforward._printable import printable
from rollforward.cli.operations.event_export import WRITERS
from rollforward.cli.options import READ_DEFAULTS, ActorFilter, Cause, Limit, ReadOptions, Since, Until, examples
from rollforward.cli.output.failures import EXIT_FAILURE
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import grid, moment, print_json
from rollforward.cli.registry.evidence import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="audit", help="List and export recorded events, recompute gate results.")

# Updating the progress bar for every event would take longer than reading the events.
_EVENTS_PER_STEP = 100


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Conditions on events, which must all be met."""

    log: Annotated[
        str, Parameter(metavar="LOG", help="tracking, registry, serving or webhooks.", show_default=False)
    ] = ""
    type: Annotated[str, Parameter(metavar="TYPE", help="Such as AliasMoved.", show_default=False)] = ""
    stream: Annotated[str, Parameter(metavar="STREAM", help="Such as model/fraud-detector.", show_default=False)] = ""
    model: Annotated[
        str,
        Parameter(
            metavar="MODEL", help="Only events of this model, by its current or a former name.", show_default=False
        ),
    ] = ""
    alias: Annotated[str, Parameter(metavar="ALIAS", help="Only events of this alias.", show_default=False)] = ""
    cause: Cause = ""
    actor: ActorFilter = ""
    request_id: Annotated[str, Parameter(metavar="ID", help="The id of the request.", show_default=False)] = ""
    correlation_id: Annotated[str, Parameter(metavar="ID", help="The client's correlation id.", show_default=False)] = (
        ""
    )
    since: Since = None
    until: Until = None

    def conditions(self) -> rf.Conditions:
        """Return the conditions as arguments of the SDK."""
        return cast("rf.Conditions", asdict(self))


ANY_EVENT: Final = EventFilter()


@app.command(
    name="list",
    help_epilogue=examples(
        "audit list --type AliasMoved --limit 20",
        "audit list --model fraud-detector --alias champion --cause rollback",
        "audit list --stream model/fraud-detector -o json",
    ),
)
def list_events(*, where: EventFilter = ANY_EVENT, limit: Limit = 100, options: ReadOptions = READ_DEFAULTS) -> None:
    """List recorded events, newest first; -o json includes their data."""
    options.connect()
    events = rf.list_events(limit=limit, **where.conditions())
    options.show(events, lambda: _events(events))


@app.command(
    help_epilogue=examples(
        "audit export > events.jsonl",
        "audit export --format csv --file moves.csv --type AliasMoved --since 2026-11-01",
    )
)
def export(
    *,
    where: EventFilter = ANY_EVENT,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["jsonl", "csv"],
        Parameter(metavar="FORMAT", help="jsonl: a CloudEvents 1.0 object per line; csv: a table with a header."),
    ] = "jsonl",
    file: Annotated[
        Path | None, Parameter(metavar="FILE", help="The file to write; it is created only when complete.")
    ] = None,
    options: ReadOptions = READ_DEFAULTS,
) -> None:
    """Export recorded events, log by log, oldest first."""
    options.connect()
    events = rf.export_events(**where.conditions())
    if file is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Data is UTF-8, whatever the terminal's encoding.
            sys.stdout.reconfigure(encoding="utf-8")
        WRITERS[format](events, sys.stdout)
        return
    with bar(f"export to {file}") as advance, _atomic_file(file) as out:
        counted = _Counted(events, advance)
        WRITERS[format](counted, out)
    if options.json:
        print_json({"file": str(file), "events": counted.count})
    else:
        print(printable(f"{counted.count} events in {file}"))


@app.command(
    help_epilogue=examples("audit recompute", "audit recompute --after 1200 -o json"),
)
def recompute(
    *,
    after: Annotated[
        int,
        Parameter(
            metavar="POSITION", validator=Number(gte=0), help="Only events after this position of the registry log."
        ),
    ] = 0,
    options: ReadOptions = READ_DEFAULTS,
) -> int:
    """Recompute every recorded gate result from its evidence; exit with 1 if one differs."""
    options.connect()
    response = rf.check_evidence(after=after)
    options.show(response, lambda: _wrong_results(response))
    return EXIT_FAILURE if response.unfounded else 0


def _wrong_results(response: v1.CheckEvidenceResponse) -> RenderableType:
    if not response.unfounded:
        scope = f"{response.evidence} gate results in {response.events} events, up to position {response.position}"
        return f"{scope}: all match their evidence"
    rows = [
        (
            str(result.position),
            result.type,
            f"{result.model}@{result.alias}" if result.alias else result.model,
            result.recorded.expression or "all of its gates",
            verdict(result.recorded) if result.HasField("recorded") else "-",
            verdict(result.computed) if result.HasField("computed") else "-",
        )
        for result in response.unfounded
    ]
    return grid(("POSITION>", "TYPE", "ABOUT", "GATE", "RECORDED", "COMPUTED"), rows)


class _Counted:
    """An iterable over events that reports how many were read."""

    def __init__(self, events: Iterable[v1.RecordedEvent], advance: Callable[[int, int | None], None]) -> None:
        self.count = 0
        self._events = events
        self._advance = advance

    def __iter__(self) -> Iterator[v1.RecordedEvent]:
        for event in self._events:
            self.count += 1
            if self.count % _EVENTS_PER_STEP == 0:
                self._advance(self.count, None)
            yield event


@contextlib.contextmanager
def _atomic_file(file: Path) -> Iterator[TextIO]:
    """Open a temporary file, which replaces `file` only if it is written completely."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # Private, because webhook URLs in the events may contain tokens.
        private = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        out = os.fdopen(private, "w", encoding="utf-8", newline="")
    except OSError as error:
        # Name the requested file, not the temporary one.
        raise type(error)(error.errno, error.strerror, str(file)) from error
    try:
        with out:
            yield out
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _type(event: v1.RecordedEvent) -> str:
    name = event.type.rpartition(".")[2]
    return f"{name} (undecodable)".strip() if event.undecodable else name


def _events(events: Sequence[v1.RecordedEvent]) -> RenderableType:
    rows = [
        (event.log, str(event.position), moment(event.time), _type(event), event.stream, event.actor, event.reason)
        for event in events
    ]
    headers = ("LOG", "POSITION>", "TIME", "TYPE", "STREAM", "ACTOR", "REASON")
    return grid(headers, rows, empty="no events match")
