"""Results as JSON: one spelling of statuses and times, null for what is absent."""

from __future__ import annotations

import json
import math

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.cli.output.documents import document, enum_name, milliseconds, plain, plain_run

TIME = Timestamp(seconds=1_764_511_200, nanos=500_000_000)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (v1.Run(status=v1.RUN_STATUS_FINISHED), "finished"),
        (v1.Version(status=v1.VERSION_STATUS_READY), "ready"),
        (v1.LoggedModel(status=v1.LOGGED_MODEL_STATUS_PENDING), "pending"),
        (v1.Run(), None),
    ],
)
def test_a_status_is_a_lower_case_word(message: Message, status: str | None) -> None:
    assert plain(message)["status"] == status


@pytest.mark.parametrize("enum", [v1.RunStatus, v1.VersionStatus, v1.PodState, v1.WebhookState, v1.AliasCause])
def test_every_word_is_bare(enum: type) -> None:
    descriptor = enum.DESCRIPTOR  # type: ignore[attr-defined]
    words = [enum_name(descriptor, number) for number in descriptor.values_by_number]
    assert words[0] is None
    assert all(found and found.islower() and "_" not in found for found in words[1:]), words


def test_a_value_of_a_newer_server_is_its_number() -> None:
    assert enum_name(v1.RunStatus.DESCRIPTOR, 99) == "99"


def test_times_are_rfc_3339_and_end_in_at() -> None:
    summary = v1.MetricSummary(last=1.0, last_timestamp=1_764_511_200_500)
    run = v1.Run(start_time=TIME, metrics={"loss": summary})
    shown = plain(run)
    assert (shown["started_at"], shown["ended_at"]) == ("2025-11-30T14:00:00.500Z", None)
    assert shown["metrics"]["loss"]["last_logged_at"] == "2025-11-30T14:00:00.500Z"
    assert plain(v1.Schedule(at=TIME))["due_at"] == "2025-11-30T14:00:00.500Z"
    assert plain(v1.AliasChange(time=TIME))["time"] == "2025-11-30T14:00:00.500Z"


def test_a_time_that_no_calendar_has_stays_a_number() -> None:
    assert milliseconds(2**62) == 2**62


def test_what_is_absent_is_null() -> None:
    change = plain(v1.AliasChange(model="m", to_version=3))
    assert (change["from_version"], change["to_version"], change["reason"]) == (None, 3, None)
    assert plain(v1.Version())["run_id"] is None


def test_texts_of_a_job_stay_as_they_are() -> None:
    assert plain(v1.Run(params={"a": ""}, tags={"RUN_STATUS_X": "RUN_STATUS_FINISHED"}))["params"] == {"a": ""}


def test_a_run_has_its_packages_only_when_asked() -> None:
    run = v1.Run(run_id="1", source=v1.RunSource(packages=["numpy==2"]))
    assert "packages" not in plain_run(run)["source"]
    assert plain_run(run, "fraud", packages=True)["source"]["packages"]
    assert plain_run(run, "fraud")["experiment"] == "fraud"
    assert plain_run(v1.Run())["source"] is None


def test_events_inside_are_spelled_the_same() -> None:
    packed = Packed()
    packed.Pack(v1.RunFinished(run_id="1", status=v1.RUN_STATUS_FAILED))
    assert plain(v1.RecordedEvent(data=packed))["data"]["status"] == "failed"


def test_every_number_is_json() -> None:
    values = document([math.nan, math.inf, -math.inf, 1.5])
    assert json.dumps(values, allow_nan=False) == '["NaN", "Infinity", "-Infinity", 1.5]'
