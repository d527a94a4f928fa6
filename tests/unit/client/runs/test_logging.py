"""Validation at the logging call: invalid points never raise, invalid labels do."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollforward import Client, v1
from rollforward._series import unpack
from rollforward.errors import InvalidRequest, PreconditionFailed
from rollforward.tracking.live_run.run import Run
from tests.unit.client.runs.tracking_service import MODEL, RUN, Tracking


class Tensor:
    """A number like the arrays of numeric libraries."""

    def __float__(self) -> float:
        return 0.5

    def __index__(self) -> int:
        return 3


def test_any_real_number_is_a_value(run: Run, tracking: Tracking) -> None:
    run.log_metric("m", 1)
    run.log_metric("m", float("inf"), step=-(2**63))
    run.log_metric("m", Tensor(), step=Tensor(), timestamp=0)
    run.flush()
    assert Counter(tracking.values("m")) == Counter([1.0, float("inf"), 0.5])


NUMBERS: list[tuple[Any, float]] = [
    (True, 1.0),
    (False, 0.0),
    (np.True_, 1.0),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3.0),
    (np.array(1.5), 1.5),
    (np.array([1.5]), 1.5),
    (np.array([[2]]), 2.0),
    (Decimal("0.25"), 0.25),
    (Fraction(1, 4), 0.25),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=repr)
@pytest.mark.filterwarnings("error")
def test_numbers_of_other_libraries_are_values(value: Any, expected: float, run: Run, tracking: Tracking) -> None:
    run.log_metric("flag", value)
    run.log_metrics({"flag": value})
    run.flush()
    assert tracking.values("flag") == [expected, expected]


STEPS: list[tuple[Any, int]] = [
    (None, 0),
    (5.0, 5),
    (-3.0, -3),
    (np.int32(5), 5),
    (np.uint8(5), 5),
    (np.float64(5.0), 5),
    (np.float32(5.0), 5),
    (np.array(5), 5),
    (np.array([5.0]), 5),
    (Decimal(5), 5),
    (Fraction(10, 2), 5),
    (float(2**62), 2**62),
]


@pytest.mark.parametrize(("step", "expected"), STEPS, ids=repr)
@pytest.mark.filterwarnings("error")
def test_whole_numbers_of_any_type_are_steps(step: Any, expected: int, run: Run, tracking: Tracking) -> None:
    run.log_metric("loss", 0.5, step=step)
    run.log_metrics({"loss": 0.5}, step)
    run.log_output(MODEL, step)
    run.flush()
    points = unpack(series for batch in tracking.batches for series in batch.series)
    assert list(points.steps) == [expected, expected]
    assert tracking.others[0].outputs[0].step == expected


@pytest.mark.parametrize("timestamp", [1_700_000_000_123, 1_700_000_000_123.9, np.int64(1_700_000_000_123)], ids=repr)
def test_a_timestamp_is_in_whole_milliseconds(timestamp: Any, run: Run, tracking: Tracking) -> None:
    run.log_metric("loss", 0.5, timestamp=timestamp)
    run.log_metrics({"loss": 0.5}, timestamp=timestamp)
    run.flush()
    points = unpack(series for batch in tracking.batches for series in batch.series)
    assert list(points.timestamps) == [1_700_000_000_123] * 2


@pytest.mark.parametrize(
    ("key", "value", "step", "reason"),
    [
        ("m", "0.5", 0, "INVALID_VALUE"),
        ("m", None, 0, "INVALID_VALUE"),
        ("m", 1j, 0, "INVALID_VALUE"),
        ("m", 10**400, 0, "INVALID_VALUE"),
        ("m", 1.0, 1.5, "INVALID_STEP"),
        ("m", 1.0, True, "INVALID_STEP"),
        ("m", 1.0, 2**63, "INVALID_STEP"),
        ("m", 1.0, 1e30, "INVALID_STEP"),
        ("m", 1.0, float("nan"), "INVALID_STEP"),
        ("m", 1.0, float("inf"), "INVALID_STEP"),
        ("m", 1.0, "5", "INVALID_STEP"),
        ("m", 1.0, np.float32(5.5), "INVALID_STEP"),
        ("m", 1.0, np.bool_(True), "INVALID_STEP"),
        ("m", 1.0, np.array([1, 2]), "INVALID_STEP"),
        ("m", np.array([1.0, 2.0]), 0, "INVALID_VALUE"),
        ("m", np.str_("1.5"), 0, "INVALID_VALUE"),
        ("", 1.0, 0, "INVALID_KEY"),
        ("k" * 251, 1.0, 0, "INVALID_KEY"),
        (7, 1.0, 0, "INVALID_KEY"),
        ("../a", 1.0, 0, "INVALID_KEY"),
        ("/a", 1.0, 0, "INVALID_KEY"),
        ("a//b", 1.0, 0, "INVALID_KEY"),
        ("a/", 1.0, 0, "INVALID_KEY"),
        (".", 1.0, 0, "INVALID_KEY"),
        ("a%", 1.0, 0, "INVALID_KEY"),
        ("\udc80", 1.0, 0, "INVALID_KEY"),
        ("lo\nss", 1.0, 0, "INVALID_KEY"),
        ("e\u0301", 1.0, 0, "INVALID_KEY"),
    ],
)
def test_invalid_point_is_counted_and_never_raised(
    key: Any, value: Any, step: Any, reason: str, run: Run, tracking: Tracking
) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric(key, value, step=step)
    with pytest.warns(RuntimeWarning) if reason == "INVALID_STEP" else nullcontext():
        run.log_metrics({"good": 1.0, key: value}, step=step)
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    good = 0 if reason == "INVALID_STEP" else 1
    assert (refused.value.reason, refused.value.metadata["points"]) == (reason, str(3 - good))
    assert tracking.values("good") == [1.0] * good
    assert tracking.values("m") == []


def test_invalid_labels_are_rejected_at_once_and_as_a_whole(run: Run, tracking: Tracking) -> None:
    refused_labels: list[tuple[dict[str, object], str]] = [
        ({"ok": 1, "": 2}, "INVALID_KEY"),
        ({"ok": 1, "p": "x" * 6_001}, "INVALID_VALUE"),
        ({"ok": 1, "p": "\0"}, "INVALID_VALUE"),
    ]
    for labels, reason in refused_labels:
        with pytest.raises(InvalidRequest) as refused:
            run.log_params(labels)
        assert refused.value.reason == reason
    run.log_params({"p": 1})
    run.log_params({"p": "1"})
    with pytest.raises(PreconditionFailed) as changed:
        run.log_params({"q": 1, "p": 2})
    assert changed.value.reason == "PARAM_CHANGED"
    run.set_tags({"t": 1})
    run.set_tags({"t": 2})
    run.flush()
    logged = [dict(batch.params) for batch in tracking.batches if batch.params]
    assert all(params == {"p": "1"} for params in logged)
    assert [dict(batch.tags) for batch in tracking.batches if batch.tags][-1] == {"t": "2"}
    run.remove_tag("t")
    run.flush()
    assert list(tracking.batches[-1].removed_tags) == ["t"]


class Broken:
    """A number of a library whose conversion fails."""

    def __float__(self) -> float:
        raise RuntimeError("the device is gone")


def test_failing_number_never_raises(run: Run) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric("m", Broken())
    with pytest.warns(RuntimeWarning):
        run.log_metric([], 1.0)  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning):
        run.log_metrics(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    assert (refused.value.reason, refused.value.metadata["points"]) == ("INVALID_VALUE", "3")


def test_lineage_and_descriptions_are_logged_in_order(run: Run, tracking: Tracking) -> None:
    data = v1.Dataset(name="transactions", digest="abc")
    run.log_input(data, context="training")
    run.log_output(MODEL, step=3)
    run.describe("why")
    run.log_metric("loss", 1.0, model_id=MODEL, dataset=data)
    run.flush()
    read, made, described = tracking.others
    assert read.inputs[0] == v1.DatasetInput(dataset=data, tags={"context": "training"})
    assert made.outputs[0] == v1.ModelOutput(model_id=MODEL, step=3)
    assert (described.description, described.run_id) == ("why", RUN)
    (series,) = tracking.batches[0].series
    assert (series.model_id, series.dataset_name, series.dataset_digest) == (MODEL, "transactions", "abc")


def test_points_with_an_invalid_context_are_rejected_by_the_client(run: Run, tracking: Tracking) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1.0, model_id="gpt")
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1.0, dataset=v1.Dataset(name="d" * 501, digest="x"))
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    assert (refused.value.reason, refused.value.metadata["points"]) == ("INVALID_MODEL_ID", "2")
    assert tracking.batches == []


def test_record_too_large_for_an_event_is_rejected(run: Run, tracking: Tracking) -> None:
    with pytest.raises(InvalidRequest) as large:
        run.log_input(v1.Dataset(name="transactions", digest="abc", profile="x" * 9_000_000))
    assert large.value.reason == "MESSAGE_TOO_LARGE"
    run.log_metric("loss", 1.0)
    run.flush()
    assert (tracking.values("loss"), tracking.others) == ([1.0], [])


@pytest.mark.parametrize(
    ("dataset", "tags", "reason"),
    [
        ({"name": "transactions"}, {}, "INVALID_DATASET"),
        ({"name": "d", "digest": "x", "source": "s" * 65_536}, {}, "INVALID_DATASET"),
        ({"name": "d", "digest": "x", "source_type": "\a"}, {}, "INVALID_DATASET"),
        ({"name": "d\n", "digest": "x"}, {}, "INVALID_DATASET"),
        ({"name": "\U00020000" * 376, "digest": "x"}, {}, "INVALID_DATASET"),
        ({"name": "d", "digest": "x"}, {"t": "v" * 501}, "INVALID_VALUE"),
    ],
)
def test_datasets_are_validated_when_logged(
    dataset: dict[str, str], tags: dict[str, str], reason: str, run: Run
) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        run.log_input(v1.Dataset(**dataset), tags=tags)
    assert wrong.value.reason == reason


def test_escaping_path_is_rejected_offline(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("all is well")
    with client.runs.start("fraud", offline=True) as run, pytest.raises(InvalidRequest) as wrong:
        run.log_artifact(tmp_path / "notes", "../elsewhere")
    assert wrong.value.reason == "INVALID_PATH"
