"""How answers look: messages as JSON, tables for people."""

from __future__ import annotations

import base64
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rollforward.v1 import AliasCause

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from rich.console import RenderableType

    from rollforward import v1

# A pipe has no width: a line of a table stays one line.
_PIPE_COLUMNS: Final = 1000
# In a table, the beginning of a text must do.
_LONGEST_CELL: Final = 300


def plain(message: Message) -> Any:
    """A message as JSON has it: the contract's field names, 64-bit integers as numbers, times as RFC 3339.

    Numbers that JSON lacks are "NaN", "Infinity" and "-Infinity"; bytes are base64; what is absent is null.
    """
    if isinstance(message, Timestamp | Duration):
        return message.ToJsonString()
    if isinstance(message, Packed):
        return {"@type": message.type_url, **_unpacked(message)}
    fields = cast("Descriptor", message.DESCRIPTOR).fields
    return {field.name: _field(message, field) for field in fields if _shown(message, field)}


def _unpacked(packed: Packed) -> dict[str, Any]:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        # A newer server's event: its bytes are better than nothing.
        return {"value": base64.b64encode(packed.value).decode()}
    inner = message_factory.GetMessageClass(descriptor)()
    inner.ParseFromString(packed.value)
    return dict(plain(inner))


def _shown(message: Message, field: FieldDescriptor) -> bool:
    # Of alternatives only the chosen one; the contract's `optional` makes an alternative of one, which is always shown.
    oneof = field.containing_oneof
    return oneof is None or len(oneof.fields) == 1 or message.HasField(field.name)


def _field(message: Message, field: FieldDescriptor) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if isinstance(value, Mapping):
        return {str(key): _value(field, value[key]) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_value(field, one) for one in value]
    return _value(field, value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return _number(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def print_json(answer: Any) -> None:
    """Print one JSON document of messages, named tuples, lists, mappings and plain values."""
    print(_dumps(document(answer), indent=2))


def print_json_line(document: Mapping[str, Any]) -> None:
    """Print one line of JSON Lines, at once."""
    print(_dumps(document), flush=True)


def document(answer: Any) -> Any:
    """What JSON has for messages, named tuples, lists, mappings and plain values."""
    if isinstance(answer, Message):
        return plain(answer)
    if isinstance(answer, float):
        return _number(answer)
    if hasattr(answer, "_asdict"):
        return document(answer._asdict())
    if isinstance(answer, Mapping):
        return {key: document(value) for key, value in answer.items()}
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return [document(one) for one in answer]
    return answer


def _dumps(document: Any, indent: int | None = None) -> str:
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    return json.dumps(document, indent=indent, ensure_ascii=not unicode, allow_nan=False)


def moment(time: Timestamp) -> str:
    """A time in UTC to the second, "-" for none."""
    return f"{Timestamp(seconds=time.seconds).ToJsonString()}" if time.seconds or time.nanos else "-"


def number(value: float) -> str:
    """A number with six significant digits."""
    return f"{value:.6g}"


def lasting(duration: Duration) -> str:
    """A span of time to the second: "2 days, 3:04:05"."""
    return str(timedelta(seconds=duration.seconds))


def version_of(version: int) -> str:
    """A version as people write it: "v3", "-" for none."""
    return f"v{version}" if version else "-"


def short(digest: str) -> str:
    """The beginning of a digest, enough to compare by eye."""
    return digest[: len("sha256:") + 12]


def labels(tags: Mapping[str, str]) -> str:
    """Tags by key: "team=risk tier=1"."""
    return " ".join(f"{key}={tags[key]}" for key in sorted(tags))


def word(name: str, prefix: str) -> str:
    """An enumeration's value as a word: POD_STATE_CURRENT is "current"."""
    return name.removeprefix(prefix).lower()


def cause_of(held: v1.Alias | v1.AliasChange) -> str:
    """What kind of act made an assignment or a change, as a word."""
    return word(AliasCause.Name(held.cause), "ALIAS_CAUSE_")


def safe(text: str) -> str:
    """A text in which nothing can command the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def grid(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> RenderableType:
    """A table without lines, a row for each of `rows`; of headers that end in ">" the columns are flush right.

    Only the last column is broken into lines, and cut when it is very long: what stands in the others can be copied.
    """
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=title or None, title_justify="left"
    )
    for index, header in enumerate(headers, 1):
        right = header.endswith(">")
        table.add_column(
            header.rstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=index < len(headers)
        )
    for row in rows:
        *others, last = map(safe, row)
        table.add_row(*(Text(cell) for cell in (*others, _beginning(last))))
    return table if table.row_count else Text("none")


def _beginning(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def pairs(facts: Mapping[str, str]) -> RenderableType:
    """Names and values, one pair a line, those without a value left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(Text(safe(name)), Text(safe(value)))
    return table


def print_table(table: RenderableType) -> None:
    """Print a table: as wide as the terminal if that is wide enough, and as it needs to be into a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    needed = Measurement.get(console, console.options.update(max_width=_PIPE_COLUMNS), table).minimum
    console.width = max(console.width, needed)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
