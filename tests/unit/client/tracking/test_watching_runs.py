"""Watches of runs: each event once, in order, across broken streams, and the initial state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from rollforward import Client, v1
from rollforward.errors import InvalidRequest
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service

pytestmark = pytest.mark.busy

Script = Callable[[Any], Iterator[v1.WatchRunsResponse]]

RUN = "a" * 32


class Scripted(Service):
    """A tracking service that runs one script per stream, repeats the last one, and records the requests."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.requests: list[v1.WatchRunsRequest] = []

    def GetExperiment(self, request: v1.GetExperimentRequest, _context: Any) -> v1.GetExperimentResponse:  # noqa: N802
        return v1.GetExperimentResponse(experiment=v1.Experiment(experiment_id="7", name=request.name))

    def WatchRuns(self, request: v1.WatchRunsRequest, context: Any) -> Iterator[v1.WatchRunsResponse]:  # noqa: N802
        self.requests.append(request)
        yield from self.scripts[min(len(self.requests), len(self.scripts)) - 1](context)


def snapshot(position: int, *run_ids: str) -> v1.WatchRunsResponse:
    """Return a snapshot, or at position 0 a part of one that continues."""
    runs = [v1.Run(run_id=run_id) for run_id in run_ids]
    return v1.WatchRunsResponse(snapshot=v1.RunSnapshot(runs=runs, continues=position == 0), position=position)


def step(*positions: int) -> v1.WatchRunsResponse:
    """Return the events of one append."""
    changes = [v1.RunChange(run_id=RUN, position=one, resumed=v1.RunResumed()) for one in positions]
    return v1.WatchRunsResponse(changes=v1.RunChanges(changes=changes), position=positions[-1])


def bookmark(position: int) -> v1.WatchRunsResponse:
    """Return a step without events."""
    return v1.WatchRunsResponse(bookmark=v1.Bookmark(), position=position)


def broken(*steps: v1.WatchRunsResponse) -> Script:
    """Send steps, then break the stream."""

    def play(context: Any) -> Iterator[v1.WatchRunsResponse]:
        yield from steps
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    return play


def lasting(*steps: v1.WatchRunsResponse) -> Script:
    """Send steps, then nothing until the caller leaves."""

    def play(context: Any) -> Iterator[v1.WatchRunsResponse]:
        yield from steps
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait(scaled(20))

    return play


def to(serve: Serve, service: Scripted) -> Client:
    """Return a client of the service."""
    return serve(service, v1.add_TrackingServiceServicer_to_server)


def test_broken_snapshot_in_parts_restarts(serve: Serve) -> None:
    service = Scripted(broken(snapshot(0, "gone")), lasting(snapshot(0, "a", "b"), snapshot(5, "c"), step(7)))
    with to(serve, service).runs.watch(experiment="e") as watch:
        assert [run.run_id for run in watch.runs] == ["a", "b", "c"]
        assert watch.position == 5
        assert next(watch).position == 7
        assert [run.run_id for run in watch.runs] == ["a", "b", "c"]
    assert [request.experiment_id for request in service.requests] == ["7", "7"]
    assert not any(request.HasField("from_position") for request in service.requests)


def test_position_advances_after_the_whole_append(serve: Serve) -> None:
    service = Scripted(
        broken(snapshot(5, RUN), step(7, 8), bookmark(11)),
        broken(step(10, 11)),  # a duplicate
        lasting(step(12, 13)),
    )
    client = to(serve, service)
    with client.runs.watch(RUN, metrics=False) as watch:
        seen = [(next(watch).position, watch.position) for _ in range(4)]
    assert seen == [(7, 5), (8, 8), (12, 11), (13, 13)]
    assert [request.from_position for request in service.requests] == [0, 11, 11]
    assert {(request.run_id, request.without_metrics) for request in service.requests} == {(RUN, True)}
    assert client.positions == {"tracking": 13}


def test_watch_from_a_position_has_no_snapshot(serve: Serve) -> None:
    service = Scripted(lasting(step(3)))
    with to(serve, service).runs.watch(RUN, from_position=0) as watch:
        assert watch.runs == ()
        assert next(watch).position == 3
    assert service.requests[0].HasField("from_position")


def test_watch_takes_either_a_run_or_an_experiment(serve: Serve) -> None:
    client = to(serve, Scripted(lasting()))
    for chosen in ({}, {"run": RUN, "experiment": "e"}):
        with pytest.raises(InvalidRequest) as refused:
            client.runs.watch(**chosen)  # type: ignore[arg-type]
        assert refused.value.reason == "INVALID_ARGUMENTS"
    with pytest.raises(InvalidRequest) as refused:
        client.runs.watch(RUN, from_position=-1)
    assert refused.value.reason == "INVALID_REVISION"
