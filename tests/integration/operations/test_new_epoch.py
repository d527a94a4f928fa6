"""What callers from the previous epoch of a log meet after a loss was accepted: a clear error, and a fresh start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import rollforward as rf
from rollforward import v1
from rollforward.errors import Conflict, RollforwardError, from_rpc_error
from rollforward.registry.watch_aliases import Watch
from rollforward.tracking.watch_runs import RunsWatch
from tests.e2e.program import until
from tests.integration.cli.command_line import done, program
from tests.integration.cli.command_line import refused as command_refused
from tests.integration.up import SECONDS, Up, up
from tests.servers.ports import free_port
from tests.servers.receiver import Receiver

KEPT_MOVES, LOST_MOVES = 4, 9
EXPORT = v1.ExportEventsRequest(filter=v1.ListEventsRequest(log="registry"))


@dataclass
class PreviousEpoch:
    """What callers have from before the registry and tracking logs lost their ends.

    Attributes:
        model: Its champion moved both before and after the position that is kept.
        client: A client that has seen every move.
        kept: The registry log's last position that is not lost.
        known: The registry log's last position that callers have seen.
        revision: The champion's last revision that callers have seen.
        page_token: For the champion's history after its newest change.
        export_token: For the rest of an export of the registry's events.
    """

    model: str
    client: rf.Client
    kept: int
    known: int
    revision: int
    page_token: str
    export_token: str
    watch: Watch
    runs: RunsWatch
    schedule_id: str
    run_id: str
    delivered_webhook: str
    undelivered_webhook: str


@dataclass
class NewEpoch:
    """The services in their new epoch, and the callers from the previous one."""

    services: Up
    previous: PreviousEpoch
    epoch: int
    receiver: Receiver


def write_kept(services: Up) -> tuple[str, str, int]:
    """Write what is not lost, and return the model, a pending schedule and the registry's head."""
    model = services.new_model(2)
    for number in range(KEPT_MOVES):
        services.move(model, 1 + number % 2)
    later = datetime.now(UTC) + timedelta(days=1)
    with rf.Client(services.address) as client:
        schedule = client.schedules.create(f"{model}@champion", 1, later)
    return model, schedule.schedule_id, services.heads()["registry"]


def write_lost(services: Up, model: str, schedule_id: str, kept: int, receiver: Receiver) -> PreviousEpoch:
    """Write what is lost later, and let callers see it."""
    client = rf.Client(services.address, timeout=20.0)
    run = services.new_run()
    watch, runs = client.aliases.watch(f"{model}@champion"), client.runs.watch(run)
    delivered = client.webhooks.create(receiver.url, model=model).webhook.webhook_id
    alias = v1.Alias()
    for number in range(LOST_MOVES):
        alias = client.aliases.move(f"{model}@champion", 1 + number % 2)
        assert next(watch).revision == alias.revision
    receiver.wait_for(LOST_MOVES)
    wait_for_cursor(client, delivered, alias.revision)
    undelivered = client.webhooks.create(receiver.url, model="nothing", from_revision=alias.revision)
    known = services.heads()["registry"]
    page = services.registry.ListAliasHistory(history_request(model), timeout=SECONDS)
    exported = next(services.audit.ExportEvents(EXPORT, timeout=SECONDS))
    return PreviousEpoch(
        *(model, client, kept, known, alias.revision, page.next_page_token, exported.resume_token),
        *(watch, runs, schedule_id, run, delivered, undelivered.webhook.webhook_id),
    )


def history_request(model: str, page_token: str = "") -> v1.ListAliasHistoryRequest:
    """Return a request for a page of one champion change."""
    return v1.ListAliasHistoryRequest(model=model, alias="champion", page_size=1, page_token=page_token)


def wait_for_cursor(client: rf.Client, webhook_id: str, position: int) -> None:
    """Wait until an endpoint's cursor is at a position."""
    until(lambda: client.webhooks.get(webhook_id).cursor == position, "the cursor was written")


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewEpoch]:
    """Yield services whose registry and tracking logs lost their ends, with that loss accepted."""
    data = tmp_path_factory.mktemp("epoch") / "data"
    copy, logs = data.with_name("copy"), ("registry", "tracking")
    options = ("--grpc", f"127.0.0.1:{free_port()}", "--webhooks-allow-private")
    with Receiver() as receiver:
        with up(data, *options) as services:
            kept_writes = write_kept(services)
        shutil.copytree(data / "nats", copy)
        with up(data, *options) as services:
            previous = write_lost(services, *kept_writes, receiver)
            webhooks_log = data / "nats/store/jetstream/$G/streams/rf-webhooks"
        shutil.copytree(webhooks_log, copy / webhooks_log.relative_to(data / "nats"), dirs_exist_ok=True)
        shutil.rmtree(data / "nats")
        copy.rename(data / "nats")
        accept = [part for log in logs for part in ("--accept-log-loss", log)]
        with up(data, *options, *accept) as services:
            status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
            epochs = {log.name: log.epoch for log in status.logs}
            assert epochs["registry"] > 1
            assert epochs["tracking"] > 1
            assert epochs["serving"] == 1
            yield NewEpoch(services, previous, epochs["registry"], receiver)
        previous.client.close()


def champion(after: NewEpoch) -> v1.ResolveAliasResponse:
    """Return the champion of the model."""
    request = v1.ResolveAliasRequest(model=after.previous.model, alias="champion")
    return after.services.registry.ResolveAlias(request, timeout=SECONDS)


def error_of(method: grpc.UnaryUnaryMultiCallable, request: object, **headers: str) -> RollforwardError:  # type: ignore[type-arg]
    """Return the error of a call."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=SECONDS, metadata=tuple(headers.items()))
    return from_rpc_error(caught.value)


def test_response_has_epoch(after: NewEpoch) -> None:
    assert champion(after).epoch == after.epoch
    assert after.previous.client.aliases.resolve_response(f"{after.previous.model}@champion").epoch == after.epoch


def test_conditional_move_from_previous_epoch_is_rejected(after: NewEpoch) -> None:
    current = champion(after)
    registry = after.services.registry
    move: dict[str, Any] = {
        "model": after.previous.model,
        "alias": "champion",
        "version": 1,
        "expected_revision": current.alias.revision,
    }
    for epoch in (0, 1, after.epoch + 1):
        error = error_of(registry.MoveAlias, v1.MoveAliasRequest(**move, epoch=epoch))
        assert isinstance(error, Conflict)
        assert (error.reason, error.metadata["epoch"]) == ("LOG_EPOCH_CHANGED", str(after.epoch))
    assert champion(after) == current
    moved = registry.MoveAlias(v1.MoveAliasRequest(**move, epoch=after.epoch), timeout=SECONDS)
    assert moved.epoch == after.epoch


@pytest.mark.parametrize("kind", ["remove", "release set", "schedule", "rollback", "rollback to", "rollback computed"])
def test_expected_revision_without_epoch_is_rejected(after: NewEpoch, kind: str) -> None:
    current, model, registry = champion(after), after.previous.model, after.services.registry
    revision = current.alias.revision
    target = v1.AliasTarget(model=model, alias="champion", version=2, expected_revision=revision)
    at = v1.ScheduleMoveRequest(model=model, alias="champion", version=2, expected_revision=revision)
    at.at.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    scope: dict[str, Any] = {"models": model, "aliases": "champion", "dry_run": True}
    method, request = {
        "remove": (
            registry.RemoveAlias,
            v1.RemoveAliasRequest(model=model, alias="champion", expected_revision=revision),
        ),
        "release set": (registry.MoveAliases, v1.MoveAliasesRequest(targets=[target])),
        "schedule": (registry.ScheduleMove, at),
        "rollback": (registry.Rollback, v1.RollbackRequest(**scope, expected_revision=revision)),
        "rollback to": (registry.Rollback, v1.RollbackRequest(**scope, as_of=v1.AsOf(position=current.position))),
        "rollback computed": (registry.Rollback, v1.RollbackRequest(**scope, expected_position=current.position)),
    }[kind]
    assert error_of(method, request).reason == "LOG_EPOCH_CHANGED"  # type: ignore[arg-type]
    assert champion(after) == current
    if kind.startswith("rollback"):
        request.epoch = after.epoch  # type: ignore[attr-defined]
        assert registry.Rollback(request, timeout=SECONDS).epoch == after.epoch  # type: ignore[arg-type]


def test_min_position_from_previous_epoch_is_rejected(after: NewEpoch) -> None:
    request = v1.GetModelRequest(name=after.previous.model)
    registry = after.services.registry
    for position in (f"registry={after.previous.known}", f"registry={after.previous.kept}", "registry=1@1"):
        error = error_of(registry.GetModel, request, **{"rollforward-min-position": position})
        assert error.reason == "LOG_EPOCH_CHANGED"
    current = champion(after)
    header = (("rollforward-min-position", f"registry={current.position}@{current.epoch}"),)
    assert registry.GetModel(request, timeout=SECONDS, metadata=header).epoch == after.epoch


def test_page_token_from_previous_epoch_is_rejected(after: NewEpoch) -> None:
    model, registry = after.previous.model, after.services.registry
    error = error_of(registry.ListAliasHistory, history_request(model, after.previous.page_token))
    assert (error.reason, error.metadata["epoch"]) == ("LOG_EPOCH_CHANGED", str(after.epoch))
    export = v1.ExportEventsRequest(filter=EXPORT.filter, resume_token=after.previous.export_token)
    with pytest.raises(grpc.RpcError) as caught:
        next(after.services.audit.ExportEvents(export, timeout=SECONDS))
    assert from_rpc_error(caught.value).reason == "LOG_EPOCH_CHANGED"
    first = registry.ListAliasHistory(history_request(model), timeout=SECONDS)
    second = registry.ListAliasHistory(history_request(model, first.next_page_token), timeout=SECONDS)
    assert second.changes[0].revision < first.changes[0].revision
    events = [event.position for part in after.services.audit.ExportEvents(EXPORT) for event in part.events]
    assert events == sorted(events)


def test_as_of_lost_position_is_rejected(after: NewEpoch) -> None:
    model, registry, kept = after.previous.model, after.services.registry, after.previous.kept
    while champion(after).position < after.previous.known:
        after.services.move(model, 3 - champion(after).alias.version)
    for epoch in (0, 1, after.epoch - 1):
        lost = v1.AsOf(position=after.previous.known, epoch=epoch)
        for method, request in (
            (registry.ResolveAlias, v1.ResolveAliasRequest(model=model, alias="champion", at=lost)),
            (registry.ResolveAliases, v1.ResolveAliasesRequest(model=model, at=lost)),
        ):
            assert error_of(method, request).reason == "LOG_EPOCH_CHANGED"
    # A position that is not lost means the same in both epochs.
    resolved = [
        registry.ResolveAlias(
            v1.ResolveAliasRequest(model=model, alias="champion", at=v1.AsOf(position=kept, epoch=epoch)),
            timeout=SECONDS,
        )
        for epoch in (0, after.epoch)
    ]
    assert resolved[0] == resolved[1]
    cli = program(after.services.address)
    command = ("aliases", "get", f"{model}@champion", "--at", str(after.previous.known))
    assert command_refused(cli(*command)) == "LOG_EPOCH_CHANGED"
    assert f"of epoch {after.epoch}" in done(cli(*command, "--epoch", str(after.epoch)))
    with rf.Client(after.services.address) as client:
        revision = client.aliases.resolve(f"{model}@champion").revision
        assert client.aliases.resolve(f"{model}@champion", revision).revision == revision


def test_connection_from_previous_epoch_recovers(after: NewEpoch) -> None:
    client = rf.Client(after.services.address, timeout=20.0)
    with client:
        client.connection.note_position("registry", after.previous.known)
        client.connection.note_epoch("registry", 0)
        client.connection.note_position("registry", after.previous.known)
        assert client.models.get(after.previous.model).name == after.previous.model
        # The caller's revision is from the previous epoch: the client raises once.
        current = champion(after).alias
        other = 3 - current.version
        with pytest.raises(Conflict) as caught:
            client.aliases.move(f"{after.previous.model}@champion", other, expected_revision=current.revision)
        assert caught.value.reason == "LOG_EPOCH_CHANGED"
        assert champion(after).alias == current
        moved = client.aliases.move(f"{after.previous.model}@champion", other, expected_revision=current.revision)
        assert moved.version == other


def test_new_connection_reads_and_moves(after: NewEpoch) -> None:
    with rf.Client(after.services.address) as client:
        alias = client.aliases.resolve(f"{after.previous.model}@champion")
        moved = client.aliases.move(
            f"{after.previous.model}@champion", 3 - alias.version, expected_revision=alias.revision
        )
        assert moved.revision > alias.revision


def test_watch_from_previous_epoch_is_rejected(after: NewEpoch) -> None:
    registry, tracking = after.services.registry, after.services.tracking
    for position in (after.previous.kept, after.previous.known, 0):
        with pytest.raises(grpc.RpcError) as caught:
            next(registry.WatchAliases(v1.WatchAliasesRequest(from_revision=position), timeout=SECONDS))
        assert from_rpc_error(caught.value).reason == "LOG_EPOCH_CHANGED"
    runs_request = v1.WatchRunsRequest(experiment_id="1", from_position=1)
    with pytest.raises(grpc.RpcError) as caught:
        next(tracking.WatchRuns(runs_request, timeout=SECONDS))
    assert from_rpc_error(caught.value).reason in {"LOG_EPOCH_CHANGED", "EXPERIMENT_NOT_FOUND"}
    watch_request = v1.WatchAliasesRequest(from_revision=after.previous.kept, epoch=after.epoch)
    assert next(registry.WatchAliases(watch_request, timeout=SECONDS)).epoch == after.epoch


def test_sdk_watch_restarts_with_snapshot(after: NewEpoch, caplog: pytest.LogCaptureFixture) -> None:
    watch = after.previous.watch
    with watch, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, watch)
        until(lambda: watch.epoch == after.epoch, "the watch begins again")
        until(lambda: bool(watch.aliases), "the watch has its snapshot")
        moved = after.services.move(after.previous.model, 3 - champion(after).alias.version)
        assert waiting.result(SECONDS).revision == moved.position
        assert [alias.alias for alias in watch.aliases] == ["champion"]
        assert watch.position == moved.position
    assert "another epoch" in caplog.text


def test_watch_of_lost_run_raises_reason(after: NewEpoch) -> None:
    with after.previous.runs as watch, pytest.raises(RollforwardError) as caught:
        next(watch)
    assert caught.value.reason == "RUN_NOT_FOUND"


def test_webhooks_with_lost_cursor_are_disabled(after: NewEpoch) -> None:
    with rf.Client(after.services.address) as client:
        for webhook_id in (after.previous.delivered_webhook, after.previous.undelivered_webhook):
            until(
                lambda webhook_id=webhook_id: (  # type: ignore[misc]
                    client.webhooks.get(webhook_id).state == v1.WEBHOOK_STATE_PARKED
                ),
                "the webhook is disabled",
            )
        with pytest.raises(Conflict) as caught:
            client.webhooks.replay(after.previous.delivered_webhook, after.previous.kept, epoch=1)
        assert caught.value.reason == "LOG_EPOCH_CHANGED"
        replayed = client.webhooks.replay(after.previous.delivered_webhook, after.previous.kept, epoch=after.epoch)
        assert replayed.state == v1.WEBHOOK_STATE_ACTIVE
        moved = after.services.move(after.previous.model, 3 - champion(after).alias.version)
        wait_for_cursor(client, after.previous.delivered_webhook, moved.position)


def test_kept_schedule_is_listed(after: NewEpoch) -> None:
    with rf.Client(after.services.address) as client:
        schedule_ids = [schedule.schedule_id for schedule in client.schedules.list()]
    assert schedule_ids == [after.previous.schedule_id]
