"""The rules of an endpoint's stream, one by one."""

from __future__ import annotations

from itertools import count

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.timestamps import timestamp
from services.webhooks.decider import DECIDER, Create, Reported, Rotate, State, decide, evolve

HOOK = "0" * 31 + "c"
URL = "https://receiver.example/hook"
BOTH = [v1.WEBHOOK_CHANGE_KIND_MOVED, v1.WEBHOOK_CHANGE_KIND_REMOVED]
SETTINGS = v1.WebhookSettings(url=URL, model="*", alias="*", changes=BOTH)
CREATED = v1.WebhookCreated(webhook_id=HOOK, settings=SETTINGS, from_revision=10)
DELETED = v1.WebhookDeleted(webhook_id=HOOK)


def create(url: str = URL, **fields: object) -> Create:
    """Sets the endpoint up."""
    return Create(v1.CreateWebhookRequest(url=url, **fields), HOOK, 10)  # type: ignore[arg-type]


def update(**fields: object) -> v1.UpdateWebhookRequest:
    """Changes the endpoint."""
    return v1.UpdateWebhookRequest(webhook_id=HOOK, **fields)  # type: ignore[arg-type]


def delivered(position: int, deliveries: int = 1) -> v1.WebhookDelivered:
    """Changes up to a position were acknowledged."""
    return v1.WebhookDelivered(
        webhook_id=HOOK, position=position, event_id=str(position), deliveries=deliveries, attempts=1, status_code=200
    )


def parked(position: int) -> v1.WebhookParked:
    """The change at a position could not be delivered."""
    return v1.WebhookParked(webhook_id=HOOK, position=position, event_id=str(position), attempts=9, detail="HTTP 500")


def resume(skip: int | None = None) -> v1.ResumeWebhookRequest:
    """Sends on, behind a revision if one is given."""
    return v1.ResumeWebhookRequest(webhook_id=HOOK, skip_revision=skip)


def replay(after: int) -> v1.ReplayWebhookRequest:
    """Sends again what is after a revision."""
    return v1.ReplayWebhookRequest(webhook_id=HOOK, from_revision=after)


def resumed(before: int, after: int) -> v1.WebhookResumed:
    """It is sent on."""
    return v1.WebhookResumed(webhook_id=HOOK, from_revision=before, to_revision=after)


def replayed(before: int, after: int) -> v1.WebhookReplayed:
    """It is sent again."""
    return v1.WebhookReplayed(webhook_id=HOOK, from_revision=before, to_revision=after)


class TestSettings:
    def test_without_a_filter_it_hears_of_everything(self) -> None:
        given(DECIDER).when(create()).then(CREATED)

    def test_kinds_are_kept_in_order_and_once(self) -> None:
        kinds = [v1.WEBHOOK_CHANGE_KIND_REMOVED, v1.WEBHOOK_CHANGE_KIND_MOVED, v1.WEBHOOK_CHANGE_KIND_REMOVED]
        given(DECIDER).when(create(changes=kinds)).then(CREATED)

    def test_what_is_not_named_stays(self) -> None:
        changed = v1.WebhookSettings(url=URL, model="fraud-*", alias="*", changes=BOTH[1:], description="d")
        event = v1.WebhookChanged(webhook_id=HOOK, from_settings=SETTINGS, to_settings=changed)
        given(DECIDER, CREATED).when(update(model="fraud-*", changes=BOTH[1:], description="d")).then(event)

    def test_the_same_settings_change_nothing(self) -> None:
        given(DECIDER, CREATED).when(update(url=URL, model="*", changes=BOTH)).then()
        given(DECIDER, CREATED).when(update()).then()

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"url": ""}, "INVALID_URL"),
            ({"url": "receiver.example/hook"}, "INVALID_URL"),
            ({"url": "ftp://receiver.example"}, "INVALID_URL"),
            ({"url": "https://"}, "INVALID_URL"),
            ({"url": "https://user:secret@receiver.example"}, "INVALID_URL"),
            ({"url": "https://receiver.example/#part"}, "INVALID_URL"),
            ({"url": "https://receiver.example/a b"}, "INVALID_URL"),
            ({"url": "https://receiver.example:99999/"}, "INVALID_URL"),
            ({"url": "https://[::1/"}, "INVALID_URL"),
            ({"url": f"https://receiver.example/{'x' * 2000}"}, "INVALID_URL"),
            ({"model": "x" * 256}, "INVALID_PATTERN"),
            ({"alias": "a\nb"}, "INVALID_PATTERN"),
            ({"changes": [7]}, "INVALID_CHANGE_KIND"),
            ({"changes": [0]}, "INVALID_CHANGE_KIND"),
            ({"description": "x" * 5001}, "INVALID_DESCRIPTION"),
        ],
        ids=count(),
    )
    def test_settings_that_cannot_be(self, fields: dict[str, object], reason: str) -> None:
        given(DECIDER).when(create(**fields)).then_rejected(reason)  # type: ignore[arg-type]
        given(DECIDER, CREATED).when(update(**fields)).then_rejected(reason)

    @pytest.mark.parametrize(
        "command",
        [
            update(),
            v1.DeleteWebhookRequest(webhook_id=HOOK),
            resume(),
            replay(0),
            Rotate(v1.RotateWebhookSecretRequest(webhook_id=HOOK), 0),
        ],
        ids=count(),
    )
    def test_of_an_endpoint_that_is_not_there(self, command: object) -> None:
        given(DECIDER).when(command).then_rejected("WEBHOOK_NOT_FOUND")
        given(DECIDER, CREATED, DELETED).when(command).then_rejected("WEBHOOK_NOT_FOUND")

    def test_it_is_taken_away(self) -> None:
        given(DECIDER, CREATED).when(v1.DeleteWebhookRequest(webhook_id=HOOK)).then(DELETED)


class TestSecret:
    def test_the_one_before_lives_on_for_a_day(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK)
        until = timestamp((5 + 24 * 3600) * 10**9)
        rotated = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=1, previous_valid_until=until)
        given(DECIDER, CREATED).when(Rotate(request, 5 * 10**9)).then(rotated)

    def test_or_as_long_as_is_asked_for(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK, overlap_seconds=0)
        before = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=4)
        rotated = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=5, previous_valid_until=timestamp(5))
        given(DECIDER, CREATED, before).when(Rotate(request, 5)).then(rotated)

    def test_but_not_for_ever(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK, overlap_seconds=30 * 24 * 3600 + 1)
        given(DECIDER, CREATED).when(Rotate(request, 0)).then_rejected("INVALID_OVERLAP")


class TestCursor:
    def test_follows_what_is_delivered(self) -> None:
        given(DECIDER, CREATED).when(Reported(delivered(12), 1)).then(delivered(12))

    def test_never_goes_back_by_a_delivery(self) -> None:
        given(DECIDER, CREATED, delivered(12)).when(Reported(delivered(12), 1)).then()
        given(DECIDER, CREATED, delivered(12)).when(Reported(delivered(11), 1)).then()
        given(DECIDER, CREATED, delivered(12)).when(Reported(parked(12), 1)).then()

    def test_what_was_sent_before_a_replay_or_a_skip_does_not_count(self) -> None:
        given(DECIDER, CREATED, delivered(12), replayed(12, 0)).when(Reported(delivered(13), 1)).then()
        given(DECIDER, CREATED, delivered(12), replayed(12, 0)).when(Reported(delivered(1), 3)).then(delivered(1))
        given(DECIDER, CREATED, resumed(10, 20)).when(Reported(parked(21), 1)).then()

    def test_nothing_counts_while_parked_or_after_the_end(self) -> None:
        given(DECIDER, CREATED, parked(11)).when(Reported(delivered(11), 1)).then()
        given(DECIDER, CREATED, parked(11)).when(Reported(parked(11), 1)).then()
        given(DECIDER, CREATED, DELETED).when(Reported(delivered(11), 1)).then()

    def test_resuming_what_is_not_parked_changes_nothing(self) -> None:
        given(DECIDER, CREATED).when(resume()).then()

    def test_resuming_goes_on_with_what_was_parked(self) -> None:
        given(DECIDER, CREATED, delivered(12), parked(13)).when(resume()).then(resumed(12, 12))

    def test_a_skip_is_explicit_parked_or_not(self) -> None:
        given(DECIDER, CREATED, delivered(12), parked(13)).when(resume(13)).then(resumed(12, 13))
        given(DECIDER, CREATED, delivered(12)).when(resume(15)).then(resumed(12, 15))

    def test_a_skip_goes_forward(self) -> None:
        given(DECIDER, CREATED, delivered(12), parked(13)).when(resume(12)).then_rejected("SKIP_BEHIND")

    def test_a_replay_goes_back(self) -> None:
        given(DECIDER, CREATED, delivered(12)).when(replay(3)).then(replayed(12, 3))
        given(DECIDER, CREATED, delivered(12), parked(13)).when(replay(12)).then(replayed(12, 12))
        given(DECIDER, CREATED, delivered(12)).when(replay(13)).then_rejected("REPLAY_AHEAD")

    def test_the_event_at_the_cursor_is_known_only_when_it_was_delivered(self) -> None:
        assert given(DECIDER, CREATED, delivered(12)).state.cursor_event == "12"
        assert given(DECIDER, CREATED, delivered(12), parked(13), resumed(12, 12)).state.cursor_event == "12"
        assert not given(DECIDER, CREATED, delivered(12), replayed(12, 3)).state.cursor_event


def test_only_commands_are_decided() -> None:
    with pytest.raises(TypeError):
        decide(v1.ListWebhooksRequest(), State())


commands = st.one_of(
    st.builds(delivered, st.integers(1, 30)),
    st.builds(parked, st.integers(1, 30)),
    st.builds(resume, st.none() | st.integers(0, 30)),
    st.builds(replay, st.integers(0, 30)),
)


@for_all(st.lists(st.tuples(commands, st.booleans()), max_size=30))
def test_whatever_happens_the_cursor_moves_as_its_events_say(asked: list[tuple[Message, bool]]) -> None:
    """Deliveries go forward, within what nobody has set since; nothing is delivered while parked; nothing is silent."""
    state = evolve(State(), RecordedEvent("", 1, 0, "", CREATED, Metadata("a"), 1))
    for number, (asks, current) in enumerate(asked, 2):
        is_report = isinstance(asks, v1.WebhookDelivered | v1.WebhookParked)
        command = Reported(asks, state.epoch if current else state.epoch - 1) if is_report else asks  # type: ignore[arg-type]
        before = state
        for payload in Given(DECIDER, state).when(command).events:
            state = evolve(state, RecordedEvent("", number, 0, "", payload, Metadata("a"), number))
            if isinstance(payload, v1.WebhookDelivered):
                assert current
                assert not before.parked
                assert state.cursor > before.cursor
            elif isinstance(payload, v1.WebhookResumed | v1.WebhookReplayed):
                assert (payload.from_revision, payload.to_revision) == (before.cursor, state.cursor)
                assert not state.parked
            else:
                assert state.parked
                assert state.cursor == before.cursor
