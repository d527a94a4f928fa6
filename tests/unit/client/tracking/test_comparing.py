"""Comparisons of runs."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest, NotFound
from rollforward.tracking.compare import side_by_side
from tests.unit.client.conftest import Serve, Service


def a_run(letter: str, **params: str) -> v1.Run:
    """Return a run that ended after 1.5 seconds."""
    return v1.Run(
        run_id=letter * 32,
        name=letter,
        experiment_id="1",
        status=v1.RUN_STATUS_FINISHED,
        start_time=Timestamp(seconds=1),
        end_time=Timestamp(seconds=2, nanos=500_000_000),
        params=params,
        metrics={f"only {letter}": v1.MetricSummary(last=1.0, count=1), "loss": v1.MetricSummary(last=ord(letter))},
    )


class Runs(Service):
    """A tracking service that returns the runs in a filter, in no particular order."""

    def __init__(self, *runs: v1.Run) -> None:
        self.runs = runs
        self.requests: list[v1.ListRunsRequest] = []

    def ListRuns(self, request: v1.ListRunsRequest, _context: Any) -> v1.ListRunsResponse:  # noqa: N802
        self.requests.append(request)
        return v1.ListRunsResponse(runs=[run for run in self.runs if run.run_id in request.filter])


def test_comparison_has_differing_parameters_and_all_metrics() -> None:
    compared = side_by_side([a_run("a", depth="3", seed="1"), a_run("b", depth="4", seed="1", extra="")])
    assert [tuple(one) for one in compared.params] == [("depth", ("3", "4")), ("extra", (None, ""))]
    assert [one.key for one in compared.metrics] == ["loss", "only a", "only b"]
    assert [one.last if one else None for one in compared.metrics[1].summaries] == [1.0, None]
    assert [one.key for one in compared.attributes] == ["name", "status", "started_at", "duration_seconds"]
    assert compared.attributes[3].values == ("1.500", "1.500")


def test_comparison_includes_equal_values_on_request() -> None:
    compared = side_by_side([a_run("a", seed="1"), a_run("b", seed="1")], with_equal=True)
    assert [tuple(one) for one in compared.params] == [("seed", ("1", "1"))]
    assert "experiment" in [one.key for one in compared.attributes]
    assert not compared.params[0].differs


def test_comparison_keeps_the_given_order_and_deleted_runs(serve: Serve) -> None:
    service = Runs(*(a_run(letter) for letter in "abc"))
    client = serve(service, v1.add_TrackingServiceServicer_to_server)
    compared = client.runs.compare(["c" * 32, a_run("a"), "c" * 32])
    assert [run.name for run in compared.runs] == ["c", "a", "c"]
    assert {request.lifecycle for request in service.requests} == {v1.LIFECYCLE_ALL}


def test_comparison_rejects_unknown_and_invalid_run_ids(serve: Serve) -> None:
    service = Runs(a_run("a"))
    client = serve(service, v1.add_TrackingServiceServicer_to_server)
    with pytest.raises(NotFound) as refused:
        client.runs.compare(["a" * 32, "d" * 32])
    assert (refused.value.reason, refused.value.metadata["run_id"]) == ("RUN_NOT_FOUND", "d" * 32)
    asked = len(service.requests)
    with pytest.raises(InvalidRequest) as wrong:
        client.runs.compare(["a' OR name = 'b"])
    assert wrong.value.reason == "INVALID_RUN_ID"
    assert len(service.requests) == asked
