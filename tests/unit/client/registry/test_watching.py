"""Watches of aliases: each change once, in order, across broken streams, and the end of the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from rollforward import v1
from rollforward.errors import InvalidRequest, Unavailable
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service

pytestmark = pytest.mark.busy

Script = Callable[[Any], Iterator[v1.WatchAliasesResponse]]


class Scripted(Service):
    """A registry that runs one script per stream and repeats the last one; it records requests and ended streams."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.requests: list[v1.WatchAliasesRequest] = []
        self.ended = threading.Event()

    def WatchAliases(self, request: v1.WatchAliasesRequest, context: Any) -> Iterator[v1.WatchAliasesResponse]:  # noqa: N802
        context.add_callback(self.ended.set)
        self.requests.append(request)
        yield from self.scripts[min(len(self.requests), len(self.scripts)) - 1](context)


def snapshot(position: int, alias: str = "a") -> v1.WatchAliasesResponse:
    """Return a snapshot, or at position 0 a part of one that continues."""
    alias_message = v1.Alias(model="m", alias=alias, version=1, revision=position)
    return v1.WatchAliasesResponse(
        snapshot=v1.AliasSnapshot(aliases=[alias_message], continues=position == 0), position=position
    )


def step(*revisions: int) -> v1.WatchAliasesResponse:
    changes = [v1.AliasChange(revision=revision) for revision in revisions]
    return v1.WatchAliasesResponse(changes=v1.AliasChanges(changes=changes), position=revisions[-1])


def bookmark(position: int) -> v1.WatchAliasesResponse:
    return v1.WatchAliasesResponse(bookmark=v1.Bookmark(), position=position)


def quiet(context: Any) -> Iterator[v1.WatchAliasesResponse]:
    """Send steps, then nothing until the caller leaves."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(scaled(20))
    yield from ()


def failing(code: grpc.StatusCode, *steps: v1.WatchAliasesResponse) -> Script:
    def play(context: Any) -> Iterator[v1.WatchAliasesResponse]:
        yield from steps
        context.abort(code, "broken")

    return play


def lasting(*steps: v1.WatchAliasesResponse) -> Script:
    def play(context: Any) -> Iterator[v1.WatchAliasesResponse]:
        yield from steps
        yield from quiet(context)

    return play


def test_snapshot_in_parts_is_complete_before_the_watch_starts_and_restarts_when_broken(serve: Serve) -> None:
    service = Scripted(
        failing(grpc.StatusCode.UNAVAILABLE, snapshot(0, "gone"), snapshot(0, "b")),
        lasting(snapshot(0, "a"), snapshot(0, "b"), snapshot(5, "c"), step(7)),
    )
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with client.aliases.watch("") as changes:
        assert [alias.alias for alias in changes.aliases] == ["a", "b", "c"]
        assert changes.position == 5
        assert next(changes).revision == 7
    assert not any(request.HasField("from_revision") for request in service.requests)


def test_broken_stream_resumes_without_gaps_or_duplicates(serve: Serve) -> None:
    service = Scripted(
        failing(grpc.StatusCode.UNAVAILABLE, snapshot(5), step(7, 8), bookmark(11)),
        failing(grpc.StatusCode.UNAVAILABLE),
        lambda _context: iter([step(11, 12)]),  # it repeats 11, then ends normally
        lasting(step(13)),
    )
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with client.aliases.watch("m@a") as changes:
        assert [alias.revision for alias in changes.aliases] == [5]
        assert changes.position == 5
        assert next(changes).revision == 7
        assert changes.position == 7
        assert [next(changes).revision for _ in range(3)] == [8, 12, 13]
        assert changes.position == 13
    assert [request.from_revision for request in service.requests] == [0, 11, 11, 12]
    assert [request.HasField("from_revision") for request in service.requests] == [False, True, True, True]
    assert client.positions == {"registry": 13}


def test_watch_from_a_revision_has_no_snapshot(serve: Serve) -> None:
    service = Scripted(lasting(step(3)))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with client.aliases.watch("m", from_revision=0) as changes:
        assert next(changes).revision == 3
    assert service.requests[0].HasField("from_revision")


def test_the_position_waits_for_the_last_change_of_an_append(serve: Serve) -> None:
    service = Scripted(lasting(snapshot(5), step(9, 9, 9), step(10)))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with client.aliases.watch("m") as changes:
        seen = [(next(changes).revision, changes.position) for _ in range(4)]
    # A watch that resumes at 5, within the append, gets the whole append again and misses nothing.
    assert seen == [(9, 5), (9, 5), (9, 9), (10, 10)]


def test_watch_can_filter_by_alias_and_tags(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.UNAVAILABLE, snapshot(1)), lasting(step(2)))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with client.aliases.watch("@champion", tags={"team": "risk"}) as changes:
        assert next(changes).revision == 2
    assert len(service.requests) == 2
    for request in service.requests:
        assert (request.model, request.alias, dict(request.tags)) == ("", "champion", {"team": "risk"})


def test_leaving_the_loop_ends_the_stream(serve: Serve) -> None:
    service = Scripted(lasting(snapshot(1), step(2)))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    for change in client.aliases.watch("m@a"):
        assert change.revision == 2
        break
    assert service.ended.wait(scaled(10))


def test_closing_from_another_thread_ends_the_loop(serve: Serve) -> None:
    service = Scripted(lasting(snapshot(1)))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    changes = client.aliases.watch("m@a")
    reader = threading.Thread(target=list, args=(changes,))
    reader.start()
    changes.close()
    reader.join(scaled(10))
    assert not reader.is_alive()
    assert service.ended.wait(scaled(10))


def test_rejected_watch_raises(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.INVALID_ARGUMENT))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with pytest.raises(InvalidRequest):
        next(client.aliases.watch("m@a", from_revision=99))


def test_watch_without_any_response_times_out(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.UNAVAILABLE))
    client = serve(service, v1.add_RegistryServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable):
        client.aliases.watch("m@a")
