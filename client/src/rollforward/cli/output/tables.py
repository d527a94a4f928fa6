"""Tables for people: aligned columns that fit the terminal, and name-value pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rollforward._printable import printable
from rollforward.cli.output.documents import document, enum_name, plain, plain_run, print_json, print_json_line
from rollforward.v1 import AliasCause

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.console import ConsoleOptions, RenderableType

    from rollforward import v1

__all__ = [
    "cause_of",
    "document",
    "duration_text",
    "enum_name",
    "grid",
    "labels",
    "moment",
    "number",
    "pairs",
    "plain",
    "plain_run",
    "print_json",
    "print_json_line",
    "print_table",
    "safe",
    "short",
    "short_id",
    "version_of",
]

# In a pipe, lines are not cut.
_PIPE_COLUMNS: Final = 1000
_WIDE_COLUMNS: Final = 1_000_000
_GAP: Final = 2
# The minimum width of a cut column, including the ellipsis.
_MIN_COLUMNS: Final = 8
# The length of ids in tables, which commands accept as a prefix.
_ID_CHARACTERS: Final = 12


def moment(time: Timestamp) -> str:
    """Return a time in UTC to the second; "-" for none."""
    return f"{Timestamp(seconds=time.seconds).ToJsonString()}" if time.seconds or time.nanos else "-"


def number(value: float) -> str:
    """Return a number with six significant digits."""
    return f"{value:.6g}"


def duration_text(duration: Duration | timedelta) -> str:
    """Return a duration in at most two units: "2d 3h", "4m 5s", "1.5s"."""
    span = duration if isinstance(duration, timedelta) else duration.ToTimedelta()
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f}s"
    parts = []
    rest = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def version_of(version: int) -> str:
    """Return a version such as "v3"; "-" for none."""
    return f"v{version}" if version else "-"


def short(digest: str) -> str:
    """Return the first characters of a digest, enough to compare it by eye."""
    return digest[: len("sha256:") + 12]


def short_id(text: str, *, wide: bool = False) -> str:
    """Return the first characters of an id, which commands accept as a prefix; the whole id with `wide`."""
    if wide:
        return text
    bare = text.removeprefix("m-")
    return text[: len(text) - len(bare)] + bare[:_ID_CHARACTERS]


def labels(tags: Mapping[str, str]) -> str:
    """Return tags sorted by key, such as "team=risk tier=1"."""
    return " ".join(f"{key}={tags[key]}" for key in sorted(tags))


def cause_of(alias: v1.Alias | v1.AliasChange) -> str:
    """Return the cause of an assignment or a change."""
    return enum_name(AliasCause.DESCRIPTOR, alias.cause) or ""


def safe(text: str) -> str:
    """Return a text that cannot control the terminal."""
    return printable(text)


def grid(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", empty: str = "nothing found"
) -> RenderableType:
    """Return a table without lines; `empty` is shown if there are no rows.

    Columns whose header ends in ">" are right-aligned. Those whose header ends in "~", and the last one, are cut with
    an ellipsis if the terminal is too narrow; the others are never cut, so that they can be copied.
    """
    cells = [tuple(map(safe, row)) for row in rows]
    if not cells:
        return Text(empty)
    columns = [
        _Column(
            header.rstrip(">~"),
            right=">" in header[-2:],
            flexible=header.endswith("~") or index == len(headers),
            width=max(cell_len(header.rstrip(">~")), *(cell_len(row[index - 1]) for row in cells)),
        )
        for index, header in enumerate(headers, 1)
    ]
    return _Grid(columns, cells, title)


@dataclass(slots=True)
class _Column:
    header: str
    right: bool
    flexible: bool
    width: int


@dataclass(frozen=True, slots=True)
class _Grid:
    columns: Sequence[_Column]
    rows: Sequence[Sequence[str]]
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = _fitted(self.columns, options.max_width)
        if self.title:
            yield self._line([self.title], [len(self.title)], options.max_width, "italic")
        yield self._line([column.header for column in self.columns], widths, options.max_width, "bold")
        for row in self.rows:
            yield self._line(row, widths, options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def _line(self, cells: Sequence[str], widths: Sequence[int], budget: int, style: str = "") -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, width, column in zip(cells, widths, self.columns, strict=False):
            text = Text(cell, style=style)
            text.truncate(width, overflow="ellipsis")
            blanks = " " * (width - text.cell_len)
            line.append_text(Text(blanks) + text if column.right else text + Text(blanks))
            line.append(" " * _GAP)
        line.rstrip()
        line.truncate(budget, overflow="ellipsis")
        return line


def _fitted(columns: Sequence[_Column], budget: int) -> list[int]:
    """Return the columns' widths; the widest flexible columns are cut first."""
    widths = [column.width for column in columns]
    excess = sum(widths) + _GAP * (len(columns) - 1) - budget
    flexible = [index for index, column in enumerate(columns) if column.flexible]
    while excess > 0:
        widest = max(flexible, key=lambda index: widths[index])
        if widths[widest] <= _MIN_COLUMNS:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def pairs(fields: Mapping[str, str]) -> RenderableType:
    """Return a table of names and values, without those that are empty."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    # Do not break a long digest or path: the column is as wide as the longest word.
    table.add_column(overflow="ignore")
    for name, value in fields.items():
        if value:
            table.add_row(Text(safe(name)), Text(safe(value)))
    return table


def print_table(table: RenderableType, *, wide: bool = False) -> None:
    """Print a table, in a terminal as wide as that unless columns need more; in a pipe, as wide as needed."""
    console = Console(highlight=False)
    if wide:
        console.width = _WIDE_COLUMNS
    elif not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    needed = Measurement.get(console, console.options.update(max_width=_PIPE_COLUMNS), table).minimum
    console.width = max(console.width, needed)
    if console.is_terminal and not wide:
        console.print(table, soft_wrap=False)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
