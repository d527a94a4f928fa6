"""Exports of events: each event once across broken streams, and errors when retries end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from rollforward import v1
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service

Script = Callable[[Any], Iterator[v1.ExportEventsResponse]]


class Scripted(Service):
    """An audit service that runs one script per stream, repeats the last one, and records the requests."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.requests: list[v1.ExportEventsRequest] = []

    def ExportEvents(self, request: v1.ExportEventsRequest, context: Any) -> Iterator[v1.ExportEventsResponse]:  # noqa: N802
        self.requests.append(request)
        yield from self.scripts[min(len(self.requests), len(self.scripts)) - 1](context)


def part(*positions: int) -> v1.ExportEventsResponse:
    """Return a part of an export, whose token is its last position."""
    events = [v1.RecordedEvent(log="registry", position=position) for position in positions]
    return v1.ExportEventsResponse(events=events, resume_token=str(positions[-1]))


def whole(*parts: v1.ExportEventsResponse) -> Script:
    return lambda _context: iter(parts)


def failing(code: grpc.StatusCode, *parts: v1.ExportEventsResponse) -> Script:
    def play(context: Any) -> Iterator[v1.ExportEventsResponse]:
        yield from parts
        context.abort(code, "broken")

    return play


def test_broken_export_resumes_after_the_last_received_part(serve: Serve) -> None:
    service = Scripted(
        failing(grpc.StatusCode.UNAVAILABLE),
        failing(grpc.StatusCode.UNAVAILABLE, part(1, 2), part(3)),
        failing(grpc.StatusCode.CANCELLED),
        failing(grpc.StatusCode.CANCELLED, part(5)),
        whole(part(8, 9)),
    )
    client = serve(service, v1.add_AuditServiceServicer_to_server)
    found = [event.position for event in client.audit.export(actor="Zoë")]
    assert found == [1, 2, 3, 5, 8, 9]
    assert [request.resume_token for request in service.requests] == ["", "", "3", "3", "5"]
    assert {request.filter.actor for request in service.requests} == {"Zoë"}


def test_export_outlasts_the_timeout_after_the_first_response(serve: Serve) -> None:
    back = threading.Event()

    def away(context: Any) -> Iterator[v1.ExportEventsResponse]:
        if back.is_set():
            yield part(2)
        else:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    service = Scripted(failing(grpc.StatusCode.UNAVAILABLE, part(1)), away)
    client = serve(service, v1.add_AuditServiceServicer_to_server, timeout=0.3)
    returns = threading.Timer(1.5, back.set)
    returns.start()
    assert [event.position for event in client.audit.export()] == [1, 2]
    returns.join()


def test_export_without_any_response_times_out(serve: Serve) -> None:
    client = serve(Scripted(failing(grpc.StatusCode.UNAVAILABLE)), v1.add_AuditServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable):
        list(client.audit.export())


def test_error_is_raised_after_the_received_events(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.INVALID_ARGUMENT, part(1)))
    export = serve(service, v1.add_AuditServiceServicer_to_server).audit.export()
    assert next(export).position == 1
    with pytest.raises(InvalidRequest):
        next(export)
    assert len(service.requests) == 1


def test_closing_the_connection_ends_a_waiting_export(serve: Serve) -> None:
    service = Scripted(failing(grpc.StatusCode.UNAVAILABLE, part(1)), failing(grpc.StatusCode.UNAVAILABLE))
    client = serve(service, v1.add_AuditServiceServicer_to_server)
    refusals: list[str] = []
    begun = threading.Event()

    def read() -> None:
        try:
            for _ in client.audit.export():
                begun.set()
        except RollforwardError as error:
            refusals.append(error.reason)

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(scaled(10))
    client.close()
    reader.join(scaled(10))
    assert refusals == ["CONNECTION_CLOSED"]
