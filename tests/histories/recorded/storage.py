"""Histories as files: JSON Lines, one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.histories.recorded import subjects
from tests.histories.recorded.recording import (
    Assignment,
    Change,
    Event,
    History,
    Intent,
    Named,
    Naming,
    Operation,
    Step,
    Stream,
)

RECORDS: Mapping[str, type] = {
    "operations": Operation,
    "streams": Stream,
    "events": Event,
    "namings": Naming,
    "named": Named,
    "failures": subjects.Failure,
    "runs": subjects.Run,
    "batches": subjects.PointBatch,
    "point_reads": subjects.PointRead,
    "endpoints": subjects.Endpoint,
    "deliveries": subjects.Delivery,
    "thresholds": subjects.Threshold,
    "gate_moves": subjects.GateMove,
    "gate_events": subjects.GateEvent,
    "evidence_checks": subjects.EvidenceCheck,
    "walks": subjects.IndexScan,
    "rebuilds": subjects.Rebuild,
    "losses": subjects.Loss,
}
"""The records of a history, by the attribute that lists them."""

_ABOUT = ("name", "goal", "faults", "schedules", "stuck", "shape", "clock", "is_whole")
_NESTED: Mapping[str, type] = {"wanted": Intent, "told": Assignment, "changes": Change, "aliases": Assignment}


def write(history: History, path: Path) -> None:
    """Write a history to a file."""
    lines: list[dict[str, Any]] = [{"record": "history", **{name: getattr(history, name) for name in _ABOUT}}]
    for name in RECORDS:
        lines += [{"record": name, **asdict(record)} for record in getattr(history, name)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def read(path: Path) -> History:
    """Return the history in a file.

    Raises:
        ValueError: The file holds something else.
    """
    history = History("")
    for text in path.read_text().splitlines():
        line = json.loads(text)
        kind = line.pop("record", None)
        if kind == "history":
            history = History(**line)
        elif kind in RECORDS:
            getattr(history, kind).append(_record(RECORDS[kind], line))
        else:
            raise ValueError(f"invalid record {kind!r} in {path}: expected one of a history")
    return history


def _record(kind: type, line: Mapping[str, Any]) -> Any:
    record = kind(**{name: _value(name, value) for name, value in line.items()})
    if isinstance(record, Stream):
        record.steps = [_record(Step, step) for step in line["steps"]]
    return record


def _value(name: str, value: Any) -> Any:
    return _tuple(_NESTED.get(name), value) if isinstance(value, list) else value


def _tuple(kind: type | None, values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_record(kind, value) if kind else value for value in values)
