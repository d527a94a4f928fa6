"""Epochs in a connection: which one it sends, and when the caller learns of a change."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import v1
from rollforward._transport.epochs import Epochs
from rollforward.errors import Conflict, epochs_in
from tests.unit.client.conftest import Serve, Service


class Log(Service):
    """A registry in an epoch, which rejects positions and revisions of other epochs."""

    def __init__(self) -> None:
        self.epoch = 1
        self.position = 40
        self.sent: list[tuple[str, int]] = []

    def MoveAlias(self, request: v1.MoveAliasRequest, context: Any) -> v1.MoveAliasResponse:  # noqa: N802
        header = dict(context.invocation_metadata()).get("rollforward-min-position", "")
        self.sent.append((header, request.epoch))
        read = int(header.partition("@")[2] or 1) if header else self.epoch
        expected = (request.epoch or 1) if request.HasField("expected_revision") else self.epoch
        if read != self.epoch or expected != self.epoch:
            self._refuse(context)
        if self.epoch > 1:
            context.set_trailing_metadata((("rollforward-epoch", f"registry={self.epoch}"),))
        self.position += 1
        return v1.MoveAliasResponse(alias=v1.Alias(version=request.version), position=self.position)

    def _refuse(self, context: Any) -> None:
        status = Status(code=grpc.StatusCode.ABORTED.value[0], message="read again")
        about = {"log": "registry", "epoch": str(self.epoch)}
        status.details.add().Pack(ErrorInfo(reason="LOG_EPOCH_CHANGED", domain="rollforward", metadata=about))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.ABORTED, status.message)


def test_positions_of_an_ended_epoch_are_dropped_and_the_call_repeated(serve: Serve) -> None:
    log = Log()
    client = serve(log, v1.add_RegistryServiceServicer_to_server)
    client.aliases.move("m@a", 1)
    log.epoch, log.position = 7, 20
    assert client.aliases.move("m@a", 2).version == 2
    assert client.positions == {"registry": 21}
    client.aliases.move("m@a", 1)
    assert [header for header, _ in log.sent] == ["", "registry=41", "", "registry=21@7"]


def test_revision_of_an_ended_epoch_is_rejected_once(serve: Serve) -> None:
    log = Log()
    client = serve(log, v1.add_RegistryServiceServicer_to_server)
    client.aliases.move("m@a", 1)
    log.epoch = 7
    client.aliases.move("m@a", 2)  # the connection notices the epoch, the caller may not
    with pytest.raises(Conflict) as caught:
        client.aliases.move("m@a", 1, expected_revision=41)
    assert caught.value.reason == "LOG_EPOCH_CHANGED"
    client.aliases.move("m@a", 1, expected_revision=42)
    assert log.sent[-1][1] == 7


def test_connection_sends_the_epoch_it_started_in(serve: Serve) -> None:
    log = Log()
    log.epoch = 7
    client = serve(log, v1.add_RegistryServiceServicer_to_server)
    with pytest.raises(Conflict):  # it has read nothing: the revision's epoch is unknown
        client.aliases.move("m@a", 1, expected_revision=41)
    client.aliases.move("m@a", 1, expected_revision=41, epoch=7)
    fresh = serve(log, v1.add_RegistryServiceServicer_to_server)
    fresh.aliases.move("m@a", 2)
    fresh.aliases.move("m@a", 1, expected_revision=42)


def test_callers_epoch_changes_only_after_it_is_reported() -> None:
    epochs = Epochs()
    assert not epochs.note("registry", 0)
    assert epochs.note("registry", 7)
    assert (epochs.read_in["registry"], epochs.suffix("registry")) == (0, "@7")
    assert not epochs.note("registry", 7)
    epochs.report("registry")
    assert epochs.read_in["registry"] == 7
    epochs.report("tracking")
    assert "tracking" not in epochs.read_in


def test_epochs_are_read_from_trailers() -> None:
    assert dict(epochs_in([("rollforward-epoch", "registry=7,tracking=8"), ("other", "a=1")])) == {
        "registry": 7,
        "tracking": 8,
    }
    assert dict(epochs_in([("rollforward-epoch", "registry,tracking=x")])) == {}
    assert dict(epochs_in(None)) == {}
