"""The webhooks service on a real NATS server with real HTTP endpoints: each change is delivered, in order."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from rollforward import v1
from rollforward.errors import InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from services.nats.server import NatsAddress
from tests.e2e.program import until
from tests.integration.webhooks.webhook_service import DIGEST, Service, sequences
from tests.servers.nats import running_nats
from tests.servers.receiver import Receiver, Request
from tests.timeouts import scaled

UNKNOWN_ID = "0" * 32


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsAddress]:
    """Run a NATS server for these tests."""
    with running_nats() as address:
        yield address


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsAddress) -> Iterator[Service]:
    """Run the service; each test uses its own model and endpoints."""
    with Service(tmp_path_factory.mktemp("webhooks"), nats) as running:
        yield running
        assert running.program.terminate() == 0
        assert "webhook failed" not in running.program.errors


@pytest.fixture
def model() -> str:
    """Return a name that no other test uses."""
    return f"model-{uuid.uuid4().hex}"


class TestOrder:
    def test_changes_are_delivered_once_in_order_signed_on_one_connection(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, secret = service.hook(receiver.url, model)
            moved = service.move(model, 250)
            taken = receiver.wait_for(250)
            assert sequences(taken) == moved == sorted(moved)
            for request in taken:
                request.verify(secret)
                assert request.id == request.json["data"]["event_id"]
            assert receiver.connections == 1
            first, last = taken[0].json, taken[-1].json
            assert (first["type"], first["data"]["from"], first["data"]["to"]["version"]) == ("alias.moved", None, 1)
            assert (last["data"]["from"]["version"], last["data"]["to"]) == (249, {"version": 250, "digest": DIGEST})
            assert (last["data"]["actor"], last["data"]["reason"], last["data"]["model"]) == ("ada", "better", model)
            service.wait_for_cursor(webhook_id, moved[-1])
            assert f'attempts_total{{outcome="taken",webhook="{webhook_id}"}} 250.0' in service.metrics()
            steps = [step.delivered for step in service.client.webhooks.deliveries(webhook_id)]
            assert sum(step.deliveries for step in steps) == 250
            assert len(steps) <= 250 / 4

    def test_changes_of_one_append_have_own_sequences_and_one_revision(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            service.hook(receiver.url, model)
            moved = service.move(model, 3, together=True)
            taken = receiver.wait_for(3)
            assert sequences(taken) == moved
            assert [request.json["data"]["revision"] for request in taken] == [moved[-1]] * 3

    def test_endpoint_receives_only_matching_changes(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, f"{model[:-2]}*", "champ*")
            other = v1.AliasMoved(model=model, alias="candidate", to_version=1, to_digest=DIGEST)
            removed = v1.AliasRemoved(model=model, alias="champion", from_version=1, from_digest=DIGEST)
            service.append([other, v1.ModelCreated(model=model), v1.AliasMoved(model="x", alias="champion")])
            expected = service.move(model) + service.append([removed])
            assert sequences(receiver.wait_for(2)) == expected
            assert [request.json["type"] for request in receiver.taken] == ["alias.moved", "alias.removed"]
            service.client.webhooks.update(webhook_id, alias="cand*", changes=["removed"])
            later = v1.AliasRemoved(model=model, alias="candidate", from_version=1, from_digest=DIGEST)
            service.append([other, removed])
            expected += service.append([later])
            assert sequences(receiver.wait_for(3)) == expected

    def test_endpoint_that_was_down_receives_all_changes_once_in_order(self, service: Service, model: str) -> None:
        receiver = Receiver()
        webhook_id, _ = service.hook(receiver.url, model)
        moved = service.move(model, 40)
        last_error = service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING).trouble
        assert (last_error.position, last_error.status_code) == (moved[0], 0)
        assert last_error.HasField("next_attempt_at")
        with receiver:
            assert sequences(receiver.wait_for(40)) == moved
            service.wait_for_cursor(webhook_id, moved[-1])
            assert len(receiver.requests) == 40
        assert service.get(webhook_id).state == v1.WEBHOOK_STATE_ACTIVE
        (logged,) = [
            line
            for line in service.program.errors.splitlines()
            if "webhook delivery failed" in line and webhook_id in line
        ]
        assert str(moved[0]) in logged

    def test_flaky_endpoint_receives_all_changes_in_order(self, service: Service, model: str) -> None:
        with Receiver(lambda _, times: 500 if times < 3 else 200) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 3)
            assert sequences(receiver.wait_for(3)) == moved
            assert sequences(receiver.requests) == [position for position in moved for _ in range(3)]
            service.wait_for_cursor(webhook_id, moved[-1])
            steps = service.client.webhooks.deliveries(webhook_id)
            assert sum(step.delivered.attempts for step in steps) == 9
            attempts = service.client.webhooks.attempts(webhook_id)
            assert [attempt.status_code for attempt in attempts] == [200, 500, 500] * 3
            assert [attempt.number for attempt in attempts] == [3, 2, 1] * 3
            first, second = (receiver.requests[at].time - receiver.requests[at - 1].time for at in (1, 2))
            assert first > 0.3  # the first pause; the tests of pause_after check how pauses grow
            assert second > 0.3

    def test_redirect_is_not_followed(self, service: Service, model: str) -> None:
        with Receiver() as elsewhere, Receiver(lambda _, __: (302, {"location": elsewhere.url})) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            service.move(model)
            assert service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING).trouble.status_code == 302
            assert not elsewhere.requests

    def test_retry_after_is_respected(self, service: Service, model: str) -> None:
        with Receiver(lambda _, times: (503, {"retry-after": "2"}) if times == 1 else 200) as receiver:
            service.hook(receiver.url, model)
            service.move(model)
            receiver.wait_for(1)
            assert receiver.requests[1].time - receiver.requests[0].time >= 1.9

    def test_slow_endpoint_delays_no_other(self, service: Service, model: str) -> None:
        free = threading.Event()

        def wait(_request: Request, _times: int) -> int:
            free.wait(scaled(30))
            return 200

        with Receiver(wait) as slow, Receiver() as quick:
            for _ in range(3):
                service.hook(slow.url, model)
            service.hook(quick.url, model)
            moved = service.move(model, 20)
            assert sequences(quick.wait_for(20, 10.0)) == moved
            assert not slow.taken
            free.set()
            slow.wait_for(60)


class TestReplay:
    def test_replay_from_revision_repeats_ids(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 5)
            receiver.wait_for(5)
            service.wait_for_cursor(webhook_id, moved[-1])
            service.client.webhooks.replay(webhook_id, moved[1])
            again = receiver.wait_for(8)[5:]
            assert sequences(again) == moved[2:]
            assert [request.id for request in again] == [request.id for request in receiver.taken[2:5]]
            moved += service.move(model, 1, first=6)
            assert sequences(receiver.wait_for(9)[8:]) == moved[-1:]

    def test_replay_during_deliveries(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            start = service.get(webhook_id).cursor
            moved = service.move(model, 300)
            receiver.wait_for(100)
            service.client.webhooks.replay(webhook_id, start)
            until(lambda: sequences(receiver.taken)[-300:] == moved, "all changes are delivered again")
            service.wait_for_cursor(webhook_id, moved[-1])

    def test_new_endpoint_may_start_in_past(self, service: Service, model: str) -> None:
        moved = service.move(model, 3)
        with Receiver() as receiver:
            service.hook(receiver.url, model, after=0)
            assert sequences(receiver.wait_for(3)) == moved

    def test_new_endpoint_starts_at_head_by_default(self, service: Service, model: str) -> None:
        service.move(model, 3)
        with Receiver() as receiver:
            service.hook(receiver.url, model)
            moved = service.move(model, 1, first=4)
            assert sequences(receiver.wait_for(1)) == moved


class TestSettings:
    def test_pending_changes_go_to_new_url(self, service: Service, model: str) -> None:
        with Receiver() as new:
            webhook_id, _ = service.hook(Receiver().url, model)
            moved = service.move(model, 2)
            service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING)
            service.client.webhooks.update(webhook_id, url=new.url)
            assert sequences(new.wait_for(2)) == moved

    def test_deleted_endpoint_receives_nothing(self, service: Service, model: str) -> None:
        with Receiver() as deleted, Receiver() as other:
            webhook_id, _ = service.hook(deleted.url, model)
            service.hook(other.url, model)
            moved = service.move(model)
            deleted.wait_for(1)
            service.client.webhooks.delete(webhook_id)
            moved += service.move(model, 1, first=2)
            assert sequences(other.wait_for(2)) == moved
            assert sequences(deleted.requests) == moved[:1]
            with pytest.raises(NotFound, match="WEBHOOK_NOT_FOUND"):
                service.get(webhook_id)

    def test_requests_are_signed_with_both_secrets_until_overlap_ends(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, old = service.hook(receiver.url, model)
            rotated = service.client.webhooks.rotate_secret(webhook_id)
            assert rotated.secret != old
            until(lambda: _is_signed_with(service, webhook_id, receiver, 2), "requests are signed with both secrets")
            for secret in (old, rotated.secret):
                receiver.taken[-1].verify(secret)
            newest = service.client.webhooks.rotate_secret(webhook_id, overlap_seconds=0).secret
            moved = service.move(model)
            until(lambda: receiver.taken[-1].json["type"] == "alias.moved", f"{moved} is delivered")
            receiver.taken[-1].verify(newest)
            assert " " not in receiver.taken[-1].headers["webhook-signature"]

    def test_secret_is_not_shown_again(self, service: Service, model: str) -> None:
        webhook_id, _ = service.hook("http://127.0.0.1:9/", model)
        request = v1.GetWebhookSecretRequest(webhook_id=webhook_id)
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.connection.call(service.client.connection.webhooks.GetWebhookSecret, request)
        assert refusal.value.reason == "SECRET_NOT_SHOWN"

    def test_repeated_creation_does_not_show_rotated_secret(self, service: Service, model: str) -> None:
        request = v1.CreateWebhookRequest(url="http://127.0.0.1:9/", model=model, request_id=uuid.uuid4().hex)
        made = service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request)
        rotated = service.client.webhooks.rotate_secret(made.webhook.webhook_id)
        again = service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request)
        assert again.secret == made.secret != rotated.secret

    def test_repeated_request_runs_once(self, service: Service, model: str) -> None:
        request = v1.CreateWebhookRequest(url="http://127.0.0.1:9/", model=model, request_id=uuid.uuid4().hex)
        first, second = (
            service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request) for _ in range(2)
        )
        assert first.webhook.webhook_id == second.webhook.webhook_id
        assert (first.secret, first.position) == (second.secret, second.position)
        request.model = "another"
        with pytest.raises(InvalidRequest) as refusal:
            service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request)
        assert refusal.value.reason == "REQUEST_ID_REUSED"
        (listed,) = [webhook for webhook in service.client.webhooks.list() if webhook.settings.model == model]
        assert (listed.webhook_id, listed.actor) == (first.webhook.webhook_id, "Zoë")

    def test_endpoints_are_listed_in_pages(self, service: Service, model: str) -> None:
        ids = [service.hook("http://127.0.0.1:9/", model)[0] for _ in range(3)]
        page, listed_ids = v1.ListWebhooksResponse(next_page_token=""), list[str]()
        while not listed_ids or page.next_page_token:
            request = v1.ListWebhooksRequest(page_size=2, page_token=page.next_page_token)
            page = service.client.connection.call(service.client.connection.webhooks.ListWebhooks, request)
            assert len(page.webhooks) <= 2
            listed_ids += [webhook.webhook_id for webhook in page.webhooks]
        assert listed_ids[-3:] == ids


class TestPrivateAddresses:
    """Private addresses: nothing is sent to them without permission."""

    def test_private_address_is_rejected(self, tmp_path: Path, model: str) -> None:
        with running_nats() as nats, Receiver() as receiver:
            with Service(tmp_path, nats, private=False) as strict:
                for host in ("127.0.0.1", "localhost", "2130706433", "[::1]", "169.254.169.254", "10.0.0.1"):
                    with pytest.raises(PreconditionFailed) as refusal:
                        strict.hook(receiver.url.replace("127.0.0.1", host), model)
                    assert refusal.value.reason == "PRIVATE_ADDRESS"
                public, _ = strict.hook("https://8.8.8.8/", model)
                with pytest.raises(PreconditionFailed) as refusal:
                    strict.client.webhooks.update(public, url=receiver.url)
                assert refusal.value.reason == "PRIVATE_ADDRESS"
                kept = strict.client.webhooks.update(public, description="kept")
                assert kept.settings.url == "https://8.8.8.8/"
            assert not receiver.requests

    def test_existing_private_endpoint_receives_nothing(self, tmp_path: Path, model: str) -> None:
        with running_nats() as nats, Receiver() as receiver:
            allowed = Service(tmp_path, nats)
            allowed.start()
            request = v1.CreateWebhookRequest(url=receiver.url, model=model, request_id=uuid.uuid4().hex)
            webhook_id = allowed.client.connection.call(
                allowed.client.connection.webhooks.CreateWebhook, request
            ).webhook.webhook_id
            allowed.program.terminate()
            allowed.client.close()
            with Service(tmp_path, nats, private=False) as strict:
                again = strict.client.connection.call(strict.client.connection.webhooks.CreateWebhook, request)
                assert again.webhook.webhook_id == webhook_id
                response = strict.client.webhooks.test(webhook_id)
                assert (response.delivered, response.status_code) == (False, 0)
                strict.move(model)
                strict.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING)
            assert not receiver.requests


class TestRejections:
    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (v1.GetWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.UpdateWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.DeleteWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.RotateWebhookSecretRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.GetWebhookSecretRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.TestWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.ResumeWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.ReplayWebhookRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.ListDeliveriesRequest(webhook_id=UNKNOWN_ID), "WEBHOOK_NOT_FOUND"),
            (v1.DeleteWebhookRequest(webhook_id="x"), "INVALID_WEBHOOK_ID"),
            (v1.GetWebhookSecretRequest(webhook_id="x"), "INVALID_WEBHOOK_ID"),
            (v1.CreateWebhookRequest(url="nowhere"), "INVALID_URL"),
            (v1.CreateWebhookRequest(url="http://a/", from_revision=2**62), "POSITION_AHEAD"),
            (v1.ResumeWebhookRequest(skip_revision=2**62, webhook_id=UNKNOWN_ID), "POSITION_AHEAD"),
            (v1.ListWebhooksRequest(page_token="x"), "INVALID_PAGE"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_invalid_request_is_rejected(self, service: Service, request_: Message, reason: str) -> None:
        method = getattr(service.client.connection.webhooks, type(request_).__name__.removesuffix("Request"))
        with pytest.raises(RollforwardError) as refusal:
            service.client.connection.call(method, request_)
        assert refusal.value.reason == reason

    def test_skip_backwards_and_replay_ahead_are_rejected(self, service: Service, model: str) -> None:
        webhook_id, _ = service.hook("http://127.0.0.1:9/", model)
        (position,) = service.move(model)
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.webhooks.replay(webhook_id, position)
        assert refusal.value.reason == "REPLAY_AHEAD"
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.webhooks.resume(webhook_id, skip_revision=position - 1)
        assert refusal.value.reason == "SKIP_BEHIND"

    def test_unknown_change_kind_is_rejected(self, service: Service) -> None:
        with pytest.raises(InvalidRequest) as refusal:
            service.client.webhooks.create("http://127.0.0.1:9/", changes=["renamed"])
        assert refusal.value.reason == "INVALID_CHANGE_KIND"


def _is_signed_with(service: Service, webhook_id: str, receiver: Receiver, secrets: int) -> bool:
    assert service.client.webhooks.test(webhook_id).delivered
    return len(receiver.taken[-1].headers["webhook-signature"].split()) == secrets
