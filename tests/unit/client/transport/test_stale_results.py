"""Results from rows that do not follow their log: the SDK warns once, until they follow it again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import rollforward as rf
from rollforward import v1
from tests.unit.client.conftest import Serve, Service

WHY = "projection registry is behind: at position 3, the log was at 4"


class Rows(Service):
    """A service whose rows may not follow their log."""

    def __init__(self) -> None:
        self.stuck = True

    def ListModels(self, _: v1.ListModelsRequest, context: Any) -> v1.ListModelsResponse:  # noqa: N802
        self._tell(context)
        return v1.ListModelsResponse()

    def ExportEvents(self, _: v1.ExportEventsRequest, context: Any) -> Iterator[v1.ExportEventsResponse]:  # noqa: N802
        self._tell(context)
        yield from (v1.ExportEventsResponse(), v1.ExportEventsResponse())

    def _tell(self, context: Any) -> None:
        if self.stuck:
            context.send_initial_metadata((("rollforward-stale", WHY.replace(" ", "%20").replace(":", "%3A")),))


def warned(client: rf.Client, reads: int = 1) -> list[str]:
    """List models several times, and return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(reads):
            client.connection.call(client.connection.registry.ListModels, v1.ListModelsRequest())
    assert {one.category for one in caught} <= {rf.RollforwardWarning}
    return [str(one.message) for one in caught]


def test_reads_from_stuck_rows_warn_once_until_the_rows_follow_again(serve: Serve) -> None:
    rows = Rows()
    client = serve(rows, v1.add_RegistryServiceServicer_to_server)
    assert warned(client, 3) == [f"results may be stale: {WHY}"]
    rows.stuck = False
    assert warned(client) == []
    rows.stuck = True
    assert warned(client, 3) == [f"results may be stale: {WHY}"]


def test_a_stream_from_stuck_rows_warns(serve: Serve) -> None:
    client = serve(Rows(), v1.add_AuditServiceServicer_to_server)
    with pytest.warns(rf.RollforwardWarning, match=f"results may be stale: {WHY}") as caught:
        assert len(list(client.connection.stream(client.connection.audit.ExportEvents, v1.ExportEventsRequest()))) == 2
    assert len(caught) == 1


def test_warning_turned_into_an_error_does_not_fail_the_call(serve: Serve) -> None:
    client = serve(Rows(), v1.add_RegistryServiceServicer_to_server)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.connection.call(client.connection.registry.ListModels, v1.ListModelsRequest())
