"""A watch gives each change once, in order, across broken streams, and closes its stream."""

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
    """Plays one script a stream, the last one again and again; keeps the requests, and notes the streams that ended."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.requests: list[v1.WatchAliasesRequest] = []
        self.ended = threading.Event()

    def WatchAliases(self, request: v1.WatchAliasesRequest, context: Any) -> Iterator[v1.WatchAliasesResponse]:  # noqa: N802
        context.add_callback(self.ended.set)
        self.requests.append(request)
        yield from self.scripts[min(len(self.requests), len(self.scripts)) - 1](context)


def snapshot(position: int, alias: str = "a") -> v1.WatchAliasesResponse:
    """A snapshot, or at position 0 a part of one that more follows of."""
    held = v1.Alias(model="m", alias=alias, version=1, revision=position)
    return v1.WatchAliasesResponse(
        snapshot=v1.AliasSnapshot(aliases=[held], continues=position == 0), position=position
    )


def step(*revisions: int) -> v1.WatchAliasesResponse:
    changes = [v1.AliasChange(revision=revision) for revision in revisions]
    return v1.WatchAliasesResponse(changes=v1.AliasChanges(changes=changes), position=revisions[-1])


def bookmark(position: int) -> v1.WatchAliasesResponse:
    return v1.WatchAliasesResponse(bookmark=v1.Bookmark(), position=position)


def quiet(context: Any) -> Iterator[v1.WatchAliasesResponse]:
    """Sends nothing more until the caller leaves."""
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


def test_a_snapshot_in_parts_is_whole_before_the_watch_begins_and_begun_anew_when_it_broke(serve: Serve) -> None:
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


def test_a_broken_stream_is_resumed_without_gap_or_repeat(serve: Serve) -> None:
    service = Scripted(
        failing(grpc.StatusCode.UNAVAILABLE, snapshot(5), step(7, 8), bookmark(11)),
        failing(grpc.StatusCode.UNAVAILABLE),
        lambda _context: iter([step(11, 12)]),  # it repeats 11, then ends in good order
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


def test_a_watch_from_a_revision_has_no_snapshot(serve: Serve) -> None:
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
    # Whoever resumes at 5 in the middle of the append gets all of it again, and misses nothing.
    assert seen == [(9, 5), (9, 5), (9, 9), (10, 10)]


def test_a_watch_may_be_of_one_alias_of_every_model_and_of_tagged_models(serve: Serve) -> None:
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


def test_a_refusal_is_raised(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.INVALID_ARGUMENT))
    client = serve(service, v1.add_RegistryServiceServicer_to_server)
    with pytest.raises(InvalidRequest):
        next(client.aliases.watch("m@a", from_revision=99))


def test_a_watch_that_was_never_answered_gives_up(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.UNAVAILABLE))
    client = serve(service, v1.add_RegistryServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable):
        client.aliases.watch("m@a")
