"""The webhooks service on a real NATS server, told to a real HTTP endpoint: each change, in order."""

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

NOBODY = "0" * 32


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsAddress]:
    """A NATS server of these tests."""
    with running_nats() as address:
        yield address


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsAddress) -> Iterator[Service]:
    """The running service; each test takes a model and endpoints of its own."""
    with Service(tmp_path_factory.mktemp("webhooks"), nats) as running:
        yield running
        assert running.program.terminate() == 0
        assert "webhook failed" not in running.program.errors


@pytest.fixture
def model() -> str:
    """A name that no other test has."""
    return f"model-{uuid.uuid4().hex}"


class TestOrder:
    def test_every_change_comes_once_in_order_signed_and_on_one_connection(self, service: Service, model: str) -> None:
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
            steps = [one.delivered for one in service.client.webhooks.deliveries(webhook_id)]
            assert sum(step.deliveries for step in steps) == 250
            assert len(steps) <= 250 / 4

    def test_changes_of_one_append_have_places_of_their_own_and_one_revision(
        self, service: Service, model: str
    ) -> None:
        with Receiver() as receiver:
            service.hook(receiver.url, model)
            moved = service.move(model, 3, together=True)
            taken = receiver.wait_for(3)
            assert sequences(taken) == moved
            assert [request.json["data"]["revision"] for request in taken] == [moved[-1]] * 3

    def test_it_hears_of_what_it_asked_for_only(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, f"{model[:-2]}*", "champ*")
            other = v1.AliasMoved(model=model, alias="candidate", to_version=1, to_digest=DIGEST)
            removed = v1.AliasRemoved(model=model, alias="champion", from_version=1, from_digest=DIGEST)
            service.append([other, v1.ModelCreated(model=model), v1.AliasMoved(model="x", alias="champion")])
            wanted = service.move(model) + service.append([removed])
            assert sequences(receiver.wait_for(2)) == wanted
            assert [request.json["type"] for request in receiver.taken] == ["alias.moved", "alias.removed"]
            service.client.webhooks.update(webhook_id, alias="cand*", changes=["removed"])
            later = v1.AliasRemoved(model=model, alias="candidate", from_version=1, from_digest=DIGEST)
            service.append([other, removed])
            wanted += service.append([later])
            assert sequences(receiver.wait_for(3)) == wanted

    def test_an_endpoint_that_was_down_gets_all_of_it_once_and_in_order(self, service: Service, model: str) -> None:
        receiver = Receiver()
        webhook_id, _ = service.hook(receiver.url, model)
        moved = service.move(model, 40)
        trouble = service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING).trouble
        assert (trouble.position, trouble.status_code) == (moved[0], 0)
        assert trouble.HasField("next_attempt_at")
        with receiver:
            assert sequences(receiver.wait_for(40)) == moved
            service.wait_for_cursor(webhook_id, moved[-1])
            assert len(receiver.requests) == 40
        assert service.get(webhook_id).state == v1.WEBHOOK_STATE_ACTIVE
        (told,) = [
            line
            for line in service.program.errors.splitlines()
            if "webhook delivery failed" in line and webhook_id in line
        ]
        assert str(moved[0]) in told

    def test_a_flaky_endpoint_gets_all_of_it_in_order(self, service: Service, model: str) -> None:
        with Receiver(lambda _, times: 500 if times < 3 else 200) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 3)
            assert sequences(receiver.wait_for(3)) == moved
            assert sequences(receiver.requests) == [position for position in moved for _ in range(3)]
            service.wait_for_cursor(webhook_id, moved[-1])
            steps = service.client.webhooks.deliveries(webhook_id)
            assert sum(one.delivered.attempts for one in steps) == 9
            attempts = service.client.webhooks.attempts(webhook_id)
            assert [one.status_code for one in attempts] == [200, 500, 500] * 3
            assert [one.number for one in attempts] == [3, 2, 1] * 3
            first, second = (receiver.requests[at].time - receiver.requests[at - 1].time for at in (1, 2))
            assert first > 0.3  # the first pause; how they grow is asked of pause_after, without a clock
            assert second > 0.3

    def test_a_redirect_is_not_followed(self, service: Service, model: str) -> None:
        with Receiver() as elsewhere, Receiver(lambda _, __: (302, {"location": elsewhere.url})) as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            service.move(model)
            assert service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING).trouble.status_code == 302
            assert not elsewhere.requests

    def test_an_endpoint_may_say_when_to_come_again(self, service: Service, model: str) -> None:
        with Receiver(lambda _, times: (503, {"retry-after": "2"}) if times == 1 else 200) as receiver:
            service.hook(receiver.url, model)
            service.move(model)
            receiver.wait_for(1)
            assert receiver.requests[1].time - receiver.requests[0].time >= 1.9

    def test_a_slow_endpoint_delays_no_other(self, service: Service, model: str) -> None:
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
    def test_from_a_revision_with_the_same_ids(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            moved = service.move(model, 5)
            receiver.wait_for(5)
            service.wait_for_cursor(webhook_id, moved[-1])
            service.client.webhooks.replay(webhook_id, moved[1])
            again = receiver.wait_for(8)[5:]
            assert sequences(again) == moved[2:]
            assert [one.id for one in again] == [one.id for one in receiver.taken[2:5]]
            moved += service.move(model, 1, first=6)
            assert sequences(receiver.wait_for(9)[8:]) == moved[-1:]

    def test_while_it_is_being_sent_to(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, _ = service.hook(receiver.url, model)
            start = service.get(webhook_id).cursor
            moved = service.move(model, 300)
            receiver.wait_for(100)
            service.client.webhooks.replay(webhook_id, start)
            until(lambda: sequences(receiver.taken)[-300:] == moved, "all is told again")
            service.wait_for_cursor(webhook_id, moved[-1])

    def test_a_new_endpoint_may_be_told_of_the_past(self, service: Service, model: str) -> None:
        moved = service.move(model, 3)
        with Receiver() as receiver:
            service.hook(receiver.url, model, after=0)
            assert sequences(receiver.wait_for(3)) == moved

    def test_a_new_endpoint_is_told_of_what_comes(self, service: Service, model: str) -> None:
        service.move(model, 3)
        with Receiver() as receiver:
            service.hook(receiver.url, model)
            moved = service.move(model, 1, first=4)
            assert sequences(receiver.wait_for(1)) == moved


class TestSettings:
    def test_requests_go_where_the_endpoint_is_now(self, service: Service, model: str) -> None:
        with Receiver() as new:
            webhook_id, _ = service.hook(Receiver().url, model)
            moved = service.move(model, 2)
            service.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING)
            service.client.webhooks.update(webhook_id, url=new.url)
            assert sequences(new.wait_for(2)) == moved

    def test_a_deleted_endpoint_hears_nothing(self, service: Service, model: str) -> None:
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

    def test_after_a_rotation_both_secrets_hold_and_then_one(self, service: Service, model: str) -> None:
        with Receiver() as receiver:
            webhook_id, old = service.hook(receiver.url, model)
            rotated = service.client.webhooks.rotate_secret(webhook_id)
            assert rotated.secret != old
            until(lambda: _is_signed_with(service, webhook_id, receiver, 2), "both secrets are signed with")
            for secret in (old, rotated.secret):
                receiver.taken[-1].verify(secret)
            newest = service.client.webhooks.rotate_secret(webhook_id, overlap_seconds=0).secret
            moved = service.move(model)
            until(lambda: receiver.taken[-1].json["type"] == "alias.moved", f"{moved} is told")
            receiver.taken[-1].verify(newest)
            assert " " not in receiver.taken[-1].headers["webhook-signature"]

    def test_a_secret_is_never_shown_again(self, service: Service, model: str) -> None:
        webhook_id, _ = service.hook("http://127.0.0.1:9/", model)
        request = v1.GetWebhookSecretRequest(webhook_id=webhook_id)
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.connection.call(service.client.connection.webhooks.GetWebhookSecret, request)
        assert refusal.value.reason == "SECRET_NOT_SHOWN"

    def test_a_repeated_creation_does_not_show_the_secret_of_a_rotation(self, service: Service, model: str) -> None:
        request = v1.CreateWebhookRequest(url="http://127.0.0.1:9/", model=model, request_id=uuid.uuid4().hex)
        made = service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request)
        rotated = service.client.webhooks.rotate_secret(made.webhook.webhook_id)
        again = service.client.connection.call(service.client.connection.webhooks.CreateWebhook, request)
        assert again.secret == made.secret != rotated.secret

    def test_a_repeated_request_is_done_once(self, service: Service, model: str) -> None:
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
        (listed,) = [one for one in service.client.webhooks.list() if one.settings.model == model]
        assert (listed.webhook_id, listed.actor) == (first.webhook.webhook_id, "Zoë")

    def test_pages(self, service: Service, model: str) -> None:
        ids = [service.hook("http://127.0.0.1:9/", model)[0] for _ in range(3)]
        page, found = v1.ListWebhooksResponse(next_page_token=""), list[str]()
        while not found or page.next_page_token:
            request = v1.ListWebhooksRequest(page_size=2, page_token=page.next_page_token)
            page = service.client.connection.call(service.client.connection.webhooks.ListWebhooks, request)
            assert len(page.webhooks) <= 2
            found += [one.webhook_id for one in page.webhooks]
        assert found[-3:] == ids


class TestPrivateAddresses:
    """Without permission nothing is sent to an address that is not public."""

    def test_need_permission(self, tmp_path: Path, model: str) -> None:
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

    def test_need_permission_when_they_are_sent_to(self, tmp_path: Path, model: str) -> None:
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
                answer = strict.client.webhooks.test(webhook_id)
                assert (answer.delivered, answer.status_code) == (False, 0)
                strict.move(model)
                strict.wait_for_state(webhook_id, v1.WEBHOOK_STATE_RETRYING)
            assert not receiver.requests


class TestRefusals:
    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (v1.GetWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.UpdateWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.DeleteWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.RotateWebhookSecretRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.GetWebhookSecretRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.TestWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.ResumeWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.ReplayWebhookRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.ListDeliveriesRequest(webhook_id=NOBODY), "WEBHOOK_NOT_FOUND"),
            (v1.DeleteWebhookRequest(webhook_id="x"), "INVALID_WEBHOOK_ID"),
            (v1.GetWebhookSecretRequest(webhook_id="x"), "INVALID_WEBHOOK_ID"),
            (v1.CreateWebhookRequest(url="nowhere"), "INVALID_URL"),
            (v1.CreateWebhookRequest(url="http://a/", from_revision=2**62), "POSITION_AHEAD"),
            (v1.ResumeWebhookRequest(skip_revision=2**62, webhook_id=NOBODY), "POSITION_AHEAD"),
            (v1.ListWebhooksRequest(page_token="x"), "INVALID_PAGE"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_each_has_its_reason(self, service: Service, request_: Message, reason: str) -> None:
        method = getattr(service.client.connection.webhooks, type(request_).__name__.removesuffix("Request"))
        with pytest.raises(RollforwardError) as refusal:
            service.client.connection.call(method, request_)
        assert refusal.value.reason == reason

    def test_a_skip_goes_forward_and_a_replay_back(self, service: Service, model: str) -> None:
        webhook_id, _ = service.hook("http://127.0.0.1:9/", model)
        (position,) = service.move(model)
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.webhooks.replay(webhook_id, position)
        assert refusal.value.reason == "REPLAY_AHEAD"
        with pytest.raises(PreconditionFailed) as refusal:
            service.client.webhooks.resume(webhook_id, skip_revision=position - 1)
        assert refusal.value.reason == "SKIP_BEHIND"

    def test_the_kinds_of_change_are_two(self, service: Service) -> None:
        with pytest.raises(InvalidRequest) as refusal:
            service.client.webhooks.create("http://127.0.0.1:9/", changes=["renamed"])
        assert refusal.value.reason == "INVALID_CHANGE_KIND"


def _is_signed_with(service: Service, webhook_id: str, receiver: Receiver, secrets: int) -> bool:
    assert service.client.webhooks.test(webhook_id).delivered
    return len(receiver.taken[-1].headers["webhook-signature"].split()) == secrets
