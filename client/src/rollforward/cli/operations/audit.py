"""The commands about recorded events: list them, export them, recompute gates."""

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
from rollforward.cli.options import READING, ActorFilter, Cause, Limit, Reading, Since, Until, examples
from rollforward.cli.output.failures import REFUSED
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import grid, moment, print_json
from rollforward.cli.registry.evidence import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="audit", help="List and export recorded events, recompute gates.")

# A bar that moves with every event would cost more than the events.
_EVENTS_PER_STEP = 100


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Conditions on events; all that are given must hold."""

    log: Annotated[
        str, Parameter(metavar="LOG", help="tracking, registry, serving or webhooks.", show_default=False)
    ] = ""
    type: Annotated[str, Parameter(metavar="TYPE", help="Such as AliasMoved.", show_default=False)] = ""
    stream: Annotated[str, Parameter(metavar="STREAM", help="Such as model/fraud-detector.", show_default=False)] = ""
    model: Annotated[
        str, Parameter(metavar="MODEL", help="About this model, by its name or a former one.", show_default=False)
    ] = ""
    alias: Annotated[str, Parameter(metavar="ALIAS", help="About this alias.", show_default=False)] = ""
    cause: Cause = ""
    actor: ActorFilter = ""
    request_id: Annotated[str, Parameter(metavar="ID", help="The id of the request.", show_default=False)] = ""
    correlation_id: Annotated[
        str, Parameter(metavar="ID", help="The correlation id of the connection.", show_default=False)
    ] = ""
    since: Since = None
    until: Until = None

    def conditions(self) -> rf.Conditions:
        """Return them as the SDK takes them."""
        return cast("rf.Conditions", asdict(self))


ANY: Final = Where()


@app.command(
    name="list",
    help_epilogue=examples(
        "audit list --type AliasMoved --limit 20",
        "audit list --model fraud-detector --alias champion --cause rollback",
        "audit list --stream model/fraud-detector -o json",
    ),
)
def list_events(*, where: Where = ANY, limit: Limit = 100, options: Reading = READING) -> None:
    """List recorded events, newest first; -o json includes what they say."""
    options.connect()
    found = rf.list_events(limit=limit, **where.conditions())
    options.show(found, lambda: _events(found))


@app.command(
    help_epilogue=examples(
        "audit export > events.jsonl",
        "audit export --format csv --file moves.csv --type AliasMoved --since 2026-11-01",
    )
)
def export(
    *,
    where: Where = ANY,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["jsonl", "csv"],
        Parameter(metavar="FORMAT", help="CloudEvents 1.0, one a line; or a table with a header."),
    ] = "jsonl",
    file: Annotated[
        Path | None, Parameter(metavar="FILE", help="Where to write; it appears when it is complete.")
    ] = None,
    options: Reading = READING,
) -> None:
    """Export recorded events, log by log, oldest first."""
    options.connect()
    events = rf.export_events(**where.conditions())
    if file is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # An export is data, not text for this terminal.
            sys.stdout.reconfigure(encoding="utf-8")
        WRITERS[format](events, sys.stdout)
        return
    with bar(f"export to {file}") as advance, _appearing(file) as out:
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
    options: Reading = READING,
) -> int:
    """Recompute every recorded gate decision from its evidence; exit with 1 if one does not follow."""
    options.connect()
    found = rf.check_evidence(after=after)
    options.show(found, lambda: _unfounded(found))
    return REFUSED if found.unfounded else 0


def _unfounded(found: v1.CheckEvidenceResponse) -> RenderableType:
    looked = f"{found.evidence} decisions of gates in {found.events} events, up to position {found.position}"
    if not found.unfounded:
        return f"{looked}: each follows from its evidence"
    rows = [
        (
            str(one.position),
            one.type,
            f"{one.model}@{one.alias}" if one.alias else one.model,
            one.recorded.expression or "all of its gates",
            verdict(one.recorded) if one.HasField("recorded") else "-",
            verdict(one.computed) if one.HasField("computed") else "-",
        )
        for one in found.unfounded
    ]
    return grid(("POSITION>", "TYPE", "ABOUT", "GATE", "RECORDED", "COMPUTED"), rows)


class _Counted:
    """Events that report how many of them were read."""

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
def _appearing(file: Path) -> Iterator[TextIO]:
    """Open a new file that takes its place when it is complete, and not at all otherwise."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # Webhooks' URLs stand in it, and they may hold tokens.
        private = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        out = os.fdopen(private, "w", encoding="utf-8", newline="")
    except OSError as error:
        # The partial file's name means nothing to whoever asked for an export.
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


def _events(found: Sequence[v1.RecordedEvent]) -> RenderableType:
    rows = [
        (one.log, str(one.position), moment(one.time), _type(one), one.stream, one.actor, one.reason) for one in found
    ]
    headers = ("LOG", "POSITION>", "TIME", "TYPE", "STREAM", "ACTOR", "REASON")
    return grid(headers, rows, empty="no events match")
