"""The export of recorded events as JSON Lines of CloudEvents, and as CSV."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Final

from rollforward._printable import csv_cell, printable_json
from rollforward.operations.cloudevents import to_cloudevent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TextIO

    from rollforward import v1

_COLUMNS: Final = (
    *("log", "position", "event_id", "time", "type", "stream", "actor", "reason"),
    *("request_id", "correlation_id", "causation_id", "traceparent", "data"),
)


def write_jsonl(events: Iterable[v1.RecordedEvent], out: TextIO) -> None:
    """Write a line for each event: a CloudEvent in structured JSON mode."""
    out.writelines(_json(to_cloudevent(event)) + "\n" for event in events)


def write_csv(events: Iterable[v1.RecordedEvent], out: TextIO) -> None:
    """Write a header, then a line for each event; `data` is JSON.

    An apostrophe is added in front of text that looks like a spreadsheet formula, and unprintable characters, such as
    carriage returns and directional overrides, are escaped. For unchanged text, use JSON Lines.
    """
    lines = csv.writer(out)
    lines.writerow(_COLUMNS)
    for event in events:
        lines.writerow(_row(event))


WRITERS: Final[Mapping[str, Callable[[Iterable[v1.RecordedEvent], TextIO], None]]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
}


def _row(event: v1.RecordedEvent) -> list[str]:
    shown = to_cloudevent(event)
    content = shown["data"] if "data" in shown else shown["data_base64"]
    plain = [str(getattr(event, column)) for column in _COLUMNS if column not in {"time", "data"}]
    return [*map(csv_cell, plain[:3]), shown["time"], *map(csv_cell, plain[3:]), printable_json(_json(content))]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
