"""The audit service on a real system: every event of every log, by filter."""

from __future__ import annotations

import time
from itertools import count

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest
from tests.integration.up import ACTOR, SECONDS, Up, new_id


def events(system: Up, page_size: int = 0, **conditions: object) -> list[v1.RecordedEvent]:
    """All events that match, page by page."""
    found: list[v1.RecordedEvent] = []
    headers = (("rollforward-min-position", ",".join(f"{log}={head}" for log, head in system.heads().items())),)
    token = ""
    while True:
        request = v1.ListEventsRequest(page_size=page_size, page_token=token, **conditions)  # type: ignore[arg-type]
        page = system.audit.ListEvents(request, metadata=headers, timeout=SECONDS)
        assert len(page.events) <= (page_size or 100)
        found += page.events
        token = page.next_page_token
        if not token:
            return found


def test_an_event_is_shown_with_all_that_is_known_of_it(system: Up, model: str) -> None:
    headers = (*ACTOR, ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    request_id = new_id()
    request = v1.MoveAliasRequest(model=model, alias="champion", version=2, reason="é\nbetter", request_id=request_id)
    moved = system.registry.MoveAlias(request, metadata=headers, timeout=SECONDS)
    (event,) = events(system, request_id=request_id)
    change = system.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS).changes[0]
    fact = v1.AliasMoved()
    assert event.data.Unpack(fact)
    assert (fact.model, fact.from_version, fact.to_version, fact.to_digest) == (model, 0, 2, moved.alias.digest)
    event.ClearField("data")
    assert event == v1.RecordedEvent(
        log="registry",
        position=moved.position,
        event_id=change.event_id,
        stream=f"model/{model}",
        type="rollforward.v1.AliasMoved",
        time=moved.alias.moved_at,
        actor="Zoë",
        reason="é\nbetter",
        request_id=request_id,
        correlation_id="together",
        traceparent=headers[-1][1],
    )


def test_conditions_narrow_what_is_found(system: Up) -> None:
    actor = f"actor {new_id()}"
    headers = (("rollforward-actor", actor), ("rollforward-correlation-id", new_id()))
    model, run_id = system.new_model(2), system.new_run()
    for version in (1, 2):
        system.move(model, version, headers=headers)
    tags = v1.LogBatchRequest(run_id=run_id, tags={"a": "b"})
    system.tracking.LogBatch(tags, metadata=headers, timeout=SECONDS)
    by_actor = events(system, actor=actor)
    assert [one.type.rpartition(".")[2] for one in by_actor] == ["RunLogged", "AliasMoved", "AliasMoved"]
    assert events(system, correlation_id=headers[1][1]) == by_actor
    assert events(system, actor=actor, log="registry") == by_actor[1:]
    assert events(system, actor=actor, type="RunLogged") == by_actor[:1]
    assert events(system, actor=actor, type="rollforward.v1.AliasMoved") == by_actor[1:]
    assert events(system, actor=actor, stream=f"model/{model}") == by_actor[1:]
    assert events(system, actor=actor, since=by_actor[1].time) == by_actor[:2]
    assert events(system, actor=actor, until=by_actor[1].time) == by_actor[2:]
    assert events(system, actor=actor, log="serving") == []
    assert len(events(system, stream=f"model/{model}")) == 5
    assert events(system, actor=actor, page_size=1) == by_actor


def test_all_events_are_found_once_newest_first_whatever_the_page(system: Up, model: str) -> None:
    system.move(model, 1)
    everything = events(system, 1000, until=Timestamp(seconds=int(time.time()) + 1))
    assert {log: len([one for one in everything if one.log == log]) for log in system.heads()} == system.heads()
    order = [(one.time.ToNanoseconds(), one.log, one.position) for one in everything]
    assert order == sorted(order, reverse=True)
    assert events(system, 7) == everything


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (v1.ListEventsRequest(log="nothing"), "UNKNOWN_LOG"),
        (v1.ListEventsRequest(page_token="garbage"), "INVALID_PAGE"),
        (v1.ListEventsRequest(page_token="WzEsMiwzXQ=="), "INVALID_PAGE"),
        (v1.ListEventsRequest(since=Timestamp(seconds=2**50)), "INVALID_TIME"),
        (v1.ListEventsRequest(until=Timestamp(nanos=-5)), "INVALID_TIME"),
        (v1.ListEventsRequest(stream="model/\0"), "INVALID_TEXT"),
    ],
    ids=count(),
)
def test_is_refused(system: Up, asked: v1.ListEventsRequest, reason: str) -> None:
    error = system.refused(system.audit.ListEvents, asked)
    assert (type(error), error.reason) == (InvalidRequest, reason)
