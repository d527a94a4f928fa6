"""What callers of the epoch before meet after a loss was accepted: refused by name, and they start again."""

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
class Before:
    """What callers hold that knew the registry and tracking logs before these lost their ends.

    Attributes:
        model: Its champion was moved before and after what is kept.
        client: A client that saw all of it.
        kept: The registry log's last position that is kept.
        known: The last that callers have seen.
        revision: The champion's revision that they have seen.
        page_token: Of the champion's history, behind its newest change.
        export_token: Of an export of the registry's events.
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
    webhook_told: str
    webhook_untold: str


@dataclass
class After:
    """The services in their new epoch, and the callers of the one before."""

    services: Up
    before: Before
    epoch: int
    receiver: Receiver


def keep(services: Up) -> tuple[str, str, int]:
    """Write what is kept; the model, a schedule to come, and the registry's head."""
    model = services.new_model(2)
    for number in range(KEPT_MOVES):
        services.move(model, 1 + number % 2)
    later = datetime.now(UTC) + timedelta(days=1)
    with rf.Client(services.address) as client:
        schedule = client.schedules.create(f"{model}@champion", 1, later)
    return model, schedule.schedule_id, services.heads()["registry"]


def know(services: Up, model: str, schedule_id: str, kept: int, receiver: Receiver) -> Before:
    """Have callers see what is lost afterwards."""
    client = rf.Client(services.address, timeout=20.0)
    run = services.new_run()
    watch, runs = client.aliases.watch(f"{model}@champion"), client.runs.watch(run)
    told = client.webhooks.create(receiver.url, model=model).webhook.webhook_id
    alias = v1.Alias()
    for number in range(LOST_MOVES):
        alias = client.aliases.move(f"{model}@champion", 1 + number % 2)
        assert next(watch).revision == alias.revision
    receiver.wait_for(LOST_MOVES)
    until_cursor(client, told, alias.revision)
    untold = client.webhooks.create(receiver.url, model="nothing", from_revision=alias.revision)
    known = services.heads()["registry"]
    page = services.registry.ListAliasHistory(history_request(model), timeout=SECONDS)
    exported = next(services.audit.ExportEvents(EXPORT, timeout=SECONDS))
    return Before(
        *(model, client, kept, known, alias.revision, page.next_page_token, exported.resume_token),
        *(watch, runs, schedule_id, run, told, untold.webhook.webhook_id),
    )


def history_request(model: str, page_token: str = "") -> v1.ListAliasHistoryRequest:
    """Return the request for a page of one change of the champion."""
    return v1.ListAliasHistoryRequest(model=model, alias="champion", page_size=1, page_token=page_token)


def until_cursor(client: rf.Client, webhook_id: str, position: int) -> None:
    """Return once an endpoint's cursor is at a position."""
    until(lambda: client.webhooks.get(webhook_id).cursor == position, "the cursor was written")


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[After]:
    """Services whose registry and tracking logs lost their ends, which was accepted."""
    data = tmp_path_factory.mktemp("epoch") / "data"
    copy, logs = data.with_name("copy"), ("registry", "tracking")
    options = ("--grpc", f"127.0.0.1:{free_port()}", "--webhooks-allow-private")
    with Receiver() as receiver:
        with up(data, *options) as services:
            kept = keep(services)
        shutil.copytree(data / "nats", copy)
        with up(data, *options) as services:
            before = know(services, *kept, receiver)
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
            yield After(services, before, epochs["registry"], receiver)
        before.client.close()


def champion(after: After) -> v1.ResolveAliasResponse:
    """Return what the alias names."""
    request = v1.ResolveAliasRequest(model=after.before.model, alias="champion")
    return after.services.registry.ResolveAlias(request, timeout=SECONDS)


def refused(method: grpc.UnaryUnaryMultiCallable, request: object, **headers: str) -> RollforwardError:  # type: ignore[type-arg]
    """Return how a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=SECONDS, metadata=tuple(headers.items()))
    return from_rpc_error(caught.value)


def test_an_answer_names_its_epoch(after: After) -> None:
    assert champion(after).epoch == after.epoch
    assert after.before.client.aliases.resolve_response(f"{after.before.model}@champion").epoch == after.epoch


def test_a_conditional_move_of_the_epoch_before_never_wins(after: After) -> None:
    now = champion(after)
    registry = after.services.registry
    ask: dict[str, Any] = {
        "model": after.before.model,
        "alias": "champion",
        "version": 1,
        "expected_revision": now.alias.revision,
    }
    for epoch in (0, 1, after.epoch + 1):
        found = refused(registry.MoveAlias, v1.MoveAliasRequest(**ask, epoch=epoch))
        assert isinstance(found, Conflict)
        assert (found.reason, found.metadata["epoch"]) == ("LOG_EPOCH_CHANGED", str(after.epoch))
    assert champion(after) == now
    moved = registry.MoveAlias(v1.MoveAliasRequest(**ask, epoch=after.epoch), timeout=SECONDS)
    assert moved.epoch == after.epoch


@pytest.mark.parametrize("kind", ["remove", "together", "schedule", "rollback", "rollback to", "rollback computed"])
def test_every_expected_revision_is_of_an_epoch(after: After, kind: str) -> None:
    now, model, registry = champion(after), after.before.model, after.services.registry
    revision = now.alias.revision
    target = v1.AliasTarget(model=model, alias="champion", version=2, expected_revision=revision)
    at = v1.ScheduleMoveRequest(model=model, alias="champion", version=2, expected_revision=revision)
    at.at.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    scope: dict[str, Any] = {"models": model, "aliases": "champion", "dry_run": True}
    method, request = {
        "remove": (
            registry.RemoveAlias,
            v1.RemoveAliasRequest(model=model, alias="champion", expected_revision=revision),
        ),
        "together": (registry.MoveAliases, v1.MoveAliasesRequest(targets=[target])),
        "schedule": (registry.ScheduleMove, at),
        "rollback": (registry.Rollback, v1.RollbackRequest(**scope, expected_revision=revision)),
        "rollback to": (registry.Rollback, v1.RollbackRequest(**scope, as_of=v1.AsOf(position=now.position))),
        "rollback computed": (registry.Rollback, v1.RollbackRequest(**scope, expected_position=now.position)),
    }[kind]
    assert refused(method, request).reason == "LOG_EPOCH_CHANGED"  # type: ignore[arg-type]
    assert champion(after) == now
    if kind.startswith("rollback"):
        request.epoch = after.epoch  # type: ignore[attr-defined]
        assert registry.Rollback(request, timeout=SECONDS).epoch == after.epoch  # type: ignore[arg-type]


def test_a_position_of_the_epoch_before_is_refused_at_once(after: After) -> None:
    request = v1.GetModelRequest(name=after.before.model)
    registry = after.services.registry
    for position in (f"registry={after.before.known}", f"registry={after.before.kept}", "registry=1@1"):
        found = refused(registry.GetModel, request, **{"rollforward-min-position": position})
        assert found.reason == "LOG_EPOCH_CHANGED"
    now = champion(after)
    header = (("rollforward-min-position", f"registry={now.position}@{now.epoch}"),)
    assert registry.GetModel(request, timeout=SECONDS, metadata=header).epoch == after.epoch


def test_a_page_token_of_the_epoch_before_is_refused(after: After) -> None:
    model, registry = after.before.model, after.services.registry
    found = refused(registry.ListAliasHistory, history_request(model, after.before.page_token))
    assert (found.reason, found.metadata["epoch"]) == ("LOG_EPOCH_CHANGED", str(after.epoch))
    export = v1.ExportEventsRequest(filter=EXPORT.filter, resume_token=after.before.export_token)
    with pytest.raises(grpc.RpcError) as caught:
        next(after.services.audit.ExportEvents(export, timeout=SECONDS))
    assert from_rpc_error(caught.value).reason == "LOG_EPOCH_CHANGED"
    first = registry.ListAliasHistory(history_request(model), timeout=SECONDS)
    second = registry.ListAliasHistory(history_request(model, first.next_page_token), timeout=SECONDS)
    assert second.changes[0].revision < first.changes[0].revision
    events = [event.position for part in after.services.audit.ExportEvents(EXPORT) for event in part.events]
    assert events == sorted(events)


def test_a_moment_that_was_lost_is_not_taken_for_another(after: After) -> None:
    model, registry, kept = after.before.model, after.services.registry, after.before.kept
    while champion(after).position < after.before.known:
        after.services.move(model, 3 - champion(after).alias.version)
    for epoch in (0, 1, after.epoch - 1):
        lost = v1.AsOf(position=after.before.known, epoch=epoch)
        for method, request in (
            (registry.ResolveAlias, v1.ResolveAliasRequest(model=model, alias="champion", at=lost)),
            (registry.ResolveAliases, v1.ResolveAliasesRequest(model=model, at=lost)),
        ):
            assert refused(method, request).reason == "LOG_EPOCH_CHANGED"
    # What was kept is the same in both epochs.
    held = [
        registry.ResolveAlias(
            v1.ResolveAliasRequest(model=model, alias="champion", at=v1.AsOf(position=kept, epoch=epoch)),
            timeout=SECONDS,
        )
        for epoch in (0, after.epoch)
    ]
    assert held[0] == held[1]
    cli = program(after.services.address)
    asked = ("aliases", "get", f"{model}@champion", "--at", str(after.before.known))
    assert command_refused(cli(*asked)) == "LOG_EPOCH_CHANGED"
    assert f"of epoch {after.epoch}" in done(cli(*asked, "--epoch", str(after.epoch)))
    with rf.Client(after.services.address) as client:
        revision = client.aliases.resolve(f"{model}@champion").revision
        assert client.aliases.resolve(f"{model}@champion", revision).revision == revision


def test_a_connection_of_the_epoch_before_goes_on(after: After) -> None:
    client = rf.Client(after.services.address, timeout=20.0)
    with client:
        client.connection.note_position("registry", after.before.known)
        client.connection.note_epoch("registry", 0)
        client.connection.note_position("registry", after.before.known)
        assert client.models.get(after.before.model).name == after.before.model
        # What its caller has read was of the epoch before: it is told once.
        now = champion(after).alias
        other = 3 - now.version
        with pytest.raises(Conflict) as caught:
            client.aliases.move(f"{after.before.model}@champion", other, expected_revision=now.revision)
        assert caught.value.reason == "LOG_EPOCH_CHANGED"
        assert champion(after).alias == now
        moved = client.aliases.move(f"{after.before.model}@champion", other, expected_revision=now.revision)
        assert moved.version == other


def test_a_new_connection_reads_and_moves(after: After) -> None:
    with rf.Client(after.services.address) as client:
        alias = client.aliases.resolve(f"{after.before.model}@champion")
        moved = client.aliases.move(
            f"{after.before.model}@champion", 3 - alias.version, expected_revision=alias.revision
        )
        assert moved.revision > alias.revision


def test_a_watch_of_the_epoch_before_is_refused(after: After) -> None:
    registry, tracking = after.services.registry, after.services.tracking
    for position in (after.before.kept, after.before.known, 0):
        with pytest.raises(grpc.RpcError) as caught:
            next(registry.WatchAliases(v1.WatchAliasesRequest(from_revision=position), timeout=SECONDS))
        assert from_rpc_error(caught.value).reason == "LOG_EPOCH_CHANGED"
    wanted = v1.WatchRunsRequest(experiment_id="1", from_position=1)
    with pytest.raises(grpc.RpcError) as caught:
        next(tracking.WatchRuns(wanted, timeout=SECONDS))
    assert from_rpc_error(caught.value).reason in {"LOG_EPOCH_CHANGED", "EXPERIMENT_NOT_FOUND"}
    resumed = v1.WatchAliasesRequest(from_revision=after.before.kept, epoch=after.epoch)
    assert next(registry.WatchAliases(resumed, timeout=SECONDS)).epoch == after.epoch


def test_the_sdks_watch_begins_again_with_a_snapshot(after: After, caplog: pytest.LogCaptureFixture) -> None:
    watch = after.before.watch
    with watch, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, watch)
        until(lambda: watch.epoch == after.epoch, "the watch begins again")
        until(lambda: bool(watch.aliases), "the watch has its snapshot")
        moved = after.services.move(after.before.model, 3 - champion(after).alias.version)
        assert waiting.result(SECONDS).revision == moved.position
        assert [alias.alias for alias in watch.aliases] == ["champion"]
        assert watch.position == moved.position
    assert "another epoch" in caplog.text


def test_a_runs_watch_whose_run_was_lost_ends_with_the_reason(after: After) -> None:
    with after.before.runs as watch, pytest.raises(RollforwardError) as caught:
        next(watch)
    assert caught.value.reason == "RUN_NOT_FOUND"


def test_webhooks_whose_cursor_was_lost_are_parked(after: After) -> None:
    with rf.Client(after.services.address) as client:
        for webhook_id in (after.before.webhook_told, after.before.webhook_untold):
            until(
                lambda webhook_id=webhook_id: (  # type: ignore[misc]
                    client.webhooks.get(webhook_id).state == v1.WEBHOOK_STATE_PARKED
                ),
                "the webhook is parked",
            )
        with pytest.raises(Conflict) as caught:
            client.webhooks.replay(after.before.webhook_told, after.before.kept, epoch=1)
        assert caught.value.reason == "LOG_EPOCH_CHANGED"
        replayed = client.webhooks.replay(after.before.webhook_told, after.before.kept, epoch=after.epoch)
        assert replayed.state == v1.WEBHOOK_STATE_ACTIVE
        moved = after.services.move(after.before.model, 3 - champion(after).alias.version)
        until_cursor(client, after.before.webhook_told, moved.position)


def test_a_schedule_that_is_kept_stands(after: After) -> None:
    with rf.Client(after.services.address) as client:
        found = [one.schedule_id for one in client.schedules.list()]
    assert found == [after.before.schedule_id]
