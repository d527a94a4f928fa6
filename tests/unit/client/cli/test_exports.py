"""Events as CloudEvents, and exports as JSON Lines and CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.cli.operations.event_export import write_csv, write_jsonl
from rollforward.operations.cloudevents import to_cloudevent


def recorded(data: Message, **more: Any) -> v1.RecordedEvent:
    packed = Packed()
    packed.Pack(data, type_url_prefix="")
    return v1.RecordedEvent(
        log="registry",
        position=2**53 + 1,
        event_id="the-id",
        stream="model/fraud-detector",
        type=data.DESCRIPTOR.full_name,
        time=Timestamp(seconds=1_793_714_400, nanos=123_456_789),
        data=packed,
        **more,
    )


MOVED = v1.AliasMoved(
    model="fraud-detector",
    alias="champion",
    to_version=3,
    cause=v1.ALIAS_CAUSE_ROLLBACK,
    restored_revision=2**53 + 1,
    evidence=[v1.GateEvidence(run=v1.GateRun(metrics={"loss": math.nan}))],
)


def test_cloudevent_has_the_attributes_of_the_wire() -> None:
    event = to_cloudevent(recorded(MOVED, actor="Zoë", reason="because", request_id="r", traceparent="00-1-2-01"))
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": "the-id",
        "source": "/rollforward/registry",
        "type": "rollforward.v1.AliasMoved",
        "subject": "model/fraud-detector",
        "time": "2026-11-03T14:00:00.123456789Z",
        "dataschema": "proto:rollforward.v1.AliasMoved",
        "datacontenttype": "application/json",
        "position": str(2**53 + 1),
        "actor": "Zoë",
        "reason": "because",
        "requestid": "r",
        "traceparent": "00-1-2-01",
    }
    assert data["to_version"] == 3
    back = json_format.ParseDict(data, v1.AliasMoved())
    assert math.isnan(back.evidence[0].run.metrics["loss"])
    assert back.SerializeToString(deterministic=True) == MOVED.SerializeToString(deterministic=True)


def test_attribute_names_are_lower_case_letters_and_digits() -> None:
    everything = dict.fromkeys(("actor", "reason", "request_id", "correlation_id", "causation_id"), "x")
    names = to_cloudevent(recorded(MOVED, traceparent="x", **everything)).keys() - {"data"}
    assert [name for name in names if not (name.isascii() and name.isalnum() and name.islower())] == []


def test_an_event_of_an_unknown_type_keeps_its_bytes() -> None:
    event = recorded(MOVED)
    event.data.type_url = "/rollforward.v9.Unheard"
    shown = to_cloudevent(event)
    assert shown["datacontenttype"] == "application/protobuf"
    assert base64.b64decode(shown["data_base64"]) == MOVED.SerializeToString()
    assert "data" not in shown


def test_jsonl_has_one_event_per_line_for_any_text() -> None:
    out = io.StringIO()
    write_jsonl([recorded(MOVED, reason="two\nlines\u2028and more"), recorded(v1.ModelDeleted(model="m"))], out)
    lines = out.getvalue().removesuffix("\n").split("\n")
    assert [json.loads(line)["type"] for line in lines] == ["rollforward.v1.AliasMoved", "rollforward.v1.ModelDeleted"]
    assert json.loads(lines[0])["reason"] == "two\nlines\u2028and more"


def test_csv_export_can_be_read_back() -> None:
    out = io.StringIO()
    write_csv([recorded(MOVED, actor='Zoë, "the" first', reason="two\nlines")], out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert (row["log"], row["position"], row["event_id"]) == ("registry", str(2**53 + 1), "the-id")
    assert (row["time"], row["type"]) == ("2026-11-03T14:00:00.123456789Z", "rollforward.v1.AliasMoved")
    assert (row["stream"], row["actor"], row["reason"]) == ("model/fraud-detector", 'Zoë, "the" first', "two\nlines")
    assert json.loads(row["data"])["cause"] == "ALIAS_CAUSE_ROLLBACK"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_export_contains_no_formula(text: str) -> None:
    out = io.StringIO()
    write_csv([recorded(MOVED, reason=text, actor=text)], out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    shown = text.replace("\r", "\\r")
    assert (row["reason"], row["actor"]) == (f"'{shown}", f"'{shown}")


def test_csv_export_without_events_is_only_a_header() -> None:
    out = io.StringIO()
    write_csv([], out)
    assert out.getvalue().count("\n") == 1


def test_undecodable_event_keeps_its_bytes() -> None:
    event = v1.RecordedEvent(
        log="registry", position=7, type="rollforward.v9.X", undecodable="unknown", payload=b"\xff"
    )
    shown = to_cloudevent(event)
    assert base64.b64decode(shown["data_base64"]) == b"\xff"
    assert "data" not in shown
