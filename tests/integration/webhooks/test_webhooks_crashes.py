"""Webhooks across crashes, stops and disabled endpoints: nothing is lost or skipped silently."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.event import RecordedEvent
from eventstore.jetstream import connect
from eventstore.tail import replay
from rollforward import v1
from services.nats.server import NatsAddress
from services.webhooks import EVENTS
from tests.e2e.program import until
from tests.integration.webhooks.webhook_service import Service, in_order_of_first, sequences
from tests.servers.nats import open_log, running_nats
from tests.servers.receiver import Receiver, Request, accept_all
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsAddress]:
    """Run a NATS server for these tests."""
    with running_nats() as address:
        yield address


@pytest.fixture
def service(tmp_path: Path, nats: NatsAddress) -> Iterator[Service]:
    """Run a service that the tests may kill."""
    with Service(tmp_path, nats) as running:
        yield running
        assert "webhook failed" not in running.program.errors


@pytest.fixture
def model() -> str:
    """Return a name that no other test uses."""
    return f"model-{uuid.uuid4().hex}"


async def all_events(nats: NatsAddress) -> list[RecordedEvent]:
    """Return all events in the webhooks log."""
    async with open_log(nats, EVENTS, "webhooks") as log:
        return [event async for batch in replay(log, 0, await log.head()) for event in batch]


async def delete_registry_log(nats: NatsAddress) -> None:
    """Delete the registry's stream, as no operator should."""
    client = await connect(nats.url, nats.user, nats.password)
    try:
        await client.jetstream().delete_stream("rf-registry")
    finally:
        await client.close()


class TestCrashes:
    def test_killed_service_loses_nothing_and_repeats_little(self, service: Service, model: str) -> None:
        def slowly(_request: Request, _times: int) -> int:
            threading.Event().wait(0.002)
            return 200

        with Receiver(slowly) as receiver:
            webhook_id, secret = service.hook(receiver.url, model)
            moved = service.move(model, 600)
            ends = []
            for enough in (150, 350):
                receiver.wait_for(enough)
                service.program.kill()
                ends.append(len(receiver.taken))
                service.start()
            until(lambda: in_order_of_first(receiver.taken) == moved, "all changes are delivered, in order")
            service.wait_for_cursor(webhook_id, moved[-1])
            delivered = sequences(receiver.taken)
            for begun, ended in zip([0, *ends], [*ends, len(delivered)], strict=True):
                assert delivered[begun:ended] == sorted({*delivered[begun:ended]})
            # At most the deliveries that were not recorded yet, and the request in progress.
            assert len(delivered) - len(moved) <= 2 * 101
            assert len({request.id for request in receiver.taken}) == len(moved)
            receiver.taken[-1].verify(secret)

    def test_graceful_stop_repeats_nothing(self, service: Service, model: str) -> None:
        begun, free = threading.Event(), threading.Event()

        def third_waits(_request: Request, _times: int) -> int:
            if len(receiver.requests) == 2:
                begun.set()
                free.wait(scaled(10))
            return 200

        with Receiver(third_waits) as receiver:
            service.hook(receiver.url, model)
            moved = service.move(model, 6)
            assert begun.wait(scaled(10))
            threading.Timer(0.3, free.set).start()
            assert service.program.terminate() == 0
            assert len(receiver.taken) == 3
            service.start()
            assert sequences(receiver.wait_for(6)) == moved
            assert len(receiver.requests) == 6

    @pytest.mark.parametrize("again", [2, 5], ids=["shorter than the cursor", "longer than the cursor"])
    def test_endpoint_is_disabled_when_log_was_replaced(self, tmp_path: Path, again: int, model: str) -> None:
        with running_nats() as nats, Service(tmp_path, nats) as service, Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 3)
            receiver.wait_for(3)
            service.wait_for_cursor(webhook_id, moved[-1])
            assert service.program.terminate() == 0
            asyncio.run(delete_registry_log(nats))
            moved = service.move(model, again)
            service.start("--accept-log-loss", "registry")
            assert service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_PARKED).trouble.attempts == 0
            assert len(receiver.requests) == 3
            service.client.webhooks.replay(webhook_id, 0)
            assert sequences(receiver.wait_for(3 + again)[3:]) == moved

    def test_secrets_survive_restart_and_are_not_in_log(self, service: Service, nats: NatsAddress, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, secret = service.hook(receiver.url, model)
            service.program.kill()
            service.start()
            assert service.client.webhooks.test(webhook_id).delivered
            receiver.taken[-1].verify(secret)
        service.client.webhooks.rotate_secret(webhook_id)
        events = asyncio.run(all_events(nats))
        assert [event for event in events if webhook_id in str(event)]
        assert not [event for event in events if "whsec_" in str(event) or secret[6:] in str(event)]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_rows_equal_rebuild(
    request: pytest.FixtureRequest, tmp_path: Path, nats: NatsAddress, model: str, database: str
) -> None:
    settings = {"ROLLFORWARD_DATABASE": request.getfixturevalue("postgres_url")} if database == "postgresql" else {}
    with Service(tmp_path, nats, **settings) as service, Receiver() as receiver:
        webhook_id, _ = service.hook(receiver.url, model)
        moved = service.move(model, 3)
        receiver.wait_for(3)
        receiver.answer = lambda _, __: 410
        moved += service.move(model, 1, first=4)
        service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_PARKED)
        service.client.webhooks.rotate_secret(webhook_id)
        service.client.webhooks.update(webhook_id, description="größer")
        receiver.answer = accept_all
        service.client.webhooks.resume(webhook_id)
        service.wait_for_cursor(webhook_id, moved[-1])
        *_, rebuilt = service.client.system.rebuild("webhooks")
        assert rebuilt.done
        assert rebuilt.live_digest == rebuilt.rebuilt_digest
        webhook = service.get(webhook_id)
        assert (webhook.rotation, webhook.settings.description, webhook.actor) == (1, "größer", "Zoë")
        steps = service.client.webhooks.deliveries(webhook_id)
        assert [step.WhichOneof("step") for step in steps] == ["delivered", "resumed", "parked", "delivered"]
        assert [step.revision for step in steps] == sorted((step.revision for step in steps), reverse=True)


class TestDisabling:
    def test_endpoint_that_is_gone_is_disabled_and_resumed_without_gap(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 2)
            receiver.wait_for(2)
            receiver.answer = lambda _, __: 410
            moved += service.move(model, 3, first=3)
            last_error = service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_PARKED).trouble
            assert (last_error.position, last_error.status_code, last_error.attempts) == (moved[2], 410, 1)
            assert not last_error.HasField("next_attempt_at")
            assert service.get(webhook_id).cursor == moved[1]
            receiver.answer = accept_all
            response = service.client.webhooks.test(webhook_id)
            assert (response.delivered, response.status_code) == (True, 204)
            resumed = service.client.webhooks.resume(webhook_id, reason="back")
            assert resumed.state == v1.WEBHOOK_STATE_ACTIVE
            receiver.wait_for(6)
            delivered = [request for request in receiver.taken if request.json["type"] != "webhook.test"]
            assert sequences(delivered) == moved
            assert len(receiver.requests) == 7

    def test_nothing_is_sent_after_failed_change_even_after_restart(self, service: Service, model: str) -> None:
        with Receiver(lambda request, _: 410 if request.json["data"]["to"]["version"] == 2 else 200) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 4)
            service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_PARKED)
            service.program.kill()
            service.start()
            other, _ = service.hook(receiver.url, model, after=moved[1])
            receiver.wait_for(3)
            assert service.get(webhook_id).state == v1.WEBHOOK_STATE_PARKED
            assert sequences(receiver.taken) == [moved[0], *moved[2:]]
            service.client.webhooks.delete(other)
            skipped = service.client.webhooks.resume(webhook_id, skip_revision=moved[1])
            assert skipped.cursor == moved[1]
            assert sequences(receiver.wait_for(5)[3:]) == moved[2:]
            service.wait_for_cursor(webhook_id, moved[-1])
            kinds = [step.WhichOneof("step") for step in service.client.webhooks.deliveries(webhook_id)]
            assert kinds == ["delivered", "resumed", "parked", "delivered"]

    def test_endpoint_is_disabled_after_repeated_failures(self, tmp_path: Path, nats: NatsAddress, model: str) -> None:
        with (
            Service(tmp_path, nats, ROLLFORWARD_WEBHOOK_PATIENCE="1") as service,
            Receiver(lambda _, __: 503) as receiver,
        ):
            webhook_id, _ = service.hook(receiver.url, model)
            (moved, _) = service.move(model, 2)
            last_error = service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_PARKED, 10.0).trouble
            assert (last_error.position, last_error.attempts) == (moved, len(receiver.requests))
            assert {request.sequence for request in receiver.requests} == {moved}
            assert last_error.attempts >= 2

    def test_resume_retries_at_once(self, service: Service, model: str) -> None:
        with Receiver(lambda _, times: (503, {"retry-after": "600"}) if times == 1 else 200) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model)
            service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING)
            service.client.webhooks.resume(webhook_id)
            assert sequences(receiver.wait_for(1, 10.0)) == moved
            service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_ACTIVE)
