"""Results as JSON: one form for statuses and times, null for missing values."""

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
def test_statuses_are_lower_case(message: Message, status: str | None) -> None:
    assert plain(message)["status"] == status


@pytest.mark.parametrize("enum", [v1.RunStatus, v1.VersionStatus, v1.PodState, v1.WebhookState, v1.AliasCause])
def test_enum_names_have_no_prefix(enum: type) -> None:
    descriptor = enum.DESCRIPTOR  # type: ignore[attr-defined]
    names = [enum_name(descriptor, number) for number in descriptor.values_by_number]
    assert names[0] is None
    assert all(found and found.islower() and "_" not in found for found in names[1:]), names


def test_unknown_enum_value_is_shown_as_its_number() -> None:
    assert enum_name(v1.RunStatus.DESCRIPTOR, 99) == "99"


def test_times_are_rfc_3339_and_named_with_at() -> None:
    summary = v1.MetricSummary(last=1.0, last_timestamp=1_764_511_200_500)
    run = v1.Run(start_time=TIME, metrics={"loss": summary})
    shown = plain(run)
    assert (shown["started_at"], shown["ended_at"]) == ("2025-11-30T14:00:00.500Z", None)
    assert shown["metrics"]["loss"]["last_logged_at"] == "2025-11-30T14:00:00.500Z"
    assert plain(v1.Schedule(at=TIME))["due_at"] == "2025-11-30T14:00:00.500Z"
    assert plain(v1.AliasChange(time=TIME))["time"] == "2025-11-30T14:00:00.500Z"


def test_time_out_of_range_stays_a_number() -> None:
    assert milliseconds(2**62) == 2**62


def test_missing_values_are_null() -> None:
    change = plain(v1.AliasChange(model="m", to_version=3))
    assert (change["from_version"], change["to_version"], change["reason"]) == (None, 3, None)
    assert plain(v1.Version())["run_id"] is None


def test_texts_logged_by_a_job_are_unchanged() -> None:
    assert plain(v1.Run(params={"a": ""}, tags={"RUN_STATUS_X": "RUN_STATUS_FINISHED"}))["params"] == {"a": ""}


def test_packages_of_a_run_are_shown_only_on_request() -> None:
    run = v1.Run(run_id="1", source=v1.RunSource(packages=["numpy==2"]))
    assert "packages" not in plain_run(run)["source"]
    assert plain_run(run, "fraud", packages=True)["source"]["packages"]
    assert plain_run(run, "fraud")["experiment"] == "fraud"
    assert plain_run(v1.Run())["source"] is None


def test_nested_events_have_the_same_form() -> None:
    packed = Packed()
    packed.Pack(v1.RunFinished(run_id="1", status=v1.RUN_STATUS_FAILED))
    assert plain(v1.RecordedEvent(data=packed))["data"]["status"] == "failed"


def test_nan_and_infinities_are_valid_json() -> None:
    values = document([math.nan, math.inf, -math.inf, 1.5])
    assert json.dumps(values, allow_nan=False) == '["NaN", "Infinity", "-Infinity", 1.5]'
