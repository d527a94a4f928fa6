"""The rules of a webhook endpoint's stream."""

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
    """Return a command that creates the endpoint."""
    return Create(v1.CreateWebhookRequest(url=url, **fields), HOOK, 10)  # type: ignore[arg-type]


def update(**fields: object) -> v1.UpdateWebhookRequest:
    """Return a request that changes the endpoint."""
    return v1.UpdateWebhookRequest(webhook_id=HOOK, **fields)  # type: ignore[arg-type]


def delivered(position: int, deliveries: int = 1) -> v1.WebhookDelivered:
    """Return the event of a delivery up to a position."""
    return v1.WebhookDelivered(
        webhook_id=HOOK, position=position, event_id=str(position), deliveries=deliveries, attempts=1, status_code=200
    )


def disabled(position: int) -> v1.WebhookParked:
    """Return the event of an endpoint disabled because the change at a position was not delivered."""
    return v1.WebhookParked(webhook_id=HOOK, position=position, event_id=str(position), attempts=9, detail="HTTP 500")


def resume(skip: int | None = None) -> v1.ResumeWebhookRequest:
    """Return a request that resumes the endpoint, after a revision if one is given."""
    return v1.ResumeWebhookRequest(webhook_id=HOOK, skip_revision=skip)


def replay(after: int) -> v1.ReplayWebhookRequest:
    """Return a request that replays the changes after a revision."""
    return v1.ReplayWebhookRequest(webhook_id=HOOK, from_revision=after)


def resumed(before: int, after: int) -> v1.WebhookResumed:
    """Return the event of a resumed endpoint."""
    return v1.WebhookResumed(webhook_id=HOOK, from_revision=before, to_revision=after)


def replayed(before: int, after: int) -> v1.WebhookReplayed:
    """Return the event of a replay."""
    return v1.WebhookReplayed(webhook_id=HOOK, from_revision=before, to_revision=after)


class TestSettings:
    def test_endpoint_without_filter_receives_all_changes(self) -> None:
        given(DECIDER).when(create()).then(CREATED)

    def test_change_kinds_are_sorted_and_unique(self) -> None:
        kinds = [v1.WEBHOOK_CHANGE_KIND_REMOVED, v1.WEBHOOK_CHANGE_KIND_MOVED, v1.WEBHOOK_CHANGE_KIND_REMOVED]
        given(DECIDER).when(create(changes=kinds)).then(CREATED)

    def test_update_keeps_other_settings(self) -> None:
        changed = v1.WebhookSettings(url=URL, model="fraud-*", alias="*", changes=BOTH[1:], description="d")
        event = v1.WebhookChanged(webhook_id=HOOK, from_settings=SETTINGS, to_settings=changed)
        given(DECIDER, CREATED).when(update(model="fraud-*", changes=BOTH[1:], description="d")).then(event)

    def test_same_settings_change_nothing(self) -> None:
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
    def test_invalid_setting_is_rejected(self, fields: dict[str, object], reason: str) -> None:
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
    def test_unknown_endpoint_is_rejected(self, command: object) -> None:
        given(DECIDER).when(command).then_rejected("WEBHOOK_NOT_FOUND")
        given(DECIDER, CREATED, DELETED).when(command).then_rejected("WEBHOOK_NOT_FOUND")

    def test_endpoint_is_deleted(self) -> None:
        given(DECIDER, CREATED).when(v1.DeleteWebhookRequest(webhook_id=HOOK)).then(DELETED)


class TestSecret:
    def test_former_secret_is_valid_for_a_day(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK)
        until = timestamp((5 + 24 * 3600) * 10**9)
        rotated = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=1, previous_valid_until=until)
        given(DECIDER, CREATED).when(Rotate(request, 5 * 10**9)).then(rotated)

    def test_former_secret_is_valid_for_requested_overlap(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK, overlap_seconds=0)
        before = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=4)
        rotated = v1.WebhookSecretRotated(webhook_id=HOOK, rotation=5, previous_valid_until=timestamp(5))
        given(DECIDER, CREATED, before).when(Rotate(request, 5)).then(rotated)

    def test_too_long_overlap_is_rejected(self) -> None:
        request = v1.RotateWebhookSecretRequest(webhook_id=HOOK, overlap_seconds=30 * 24 * 3600 + 1)
        given(DECIDER, CREATED).when(Rotate(request, 0)).then_rejected("INVALID_OVERLAP")


class TestCursor:
    def test_delivery_advances_cursor(self) -> None:
        given(DECIDER, CREATED).when(Reported(delivered(12), 1)).then(delivered(12))

    def test_older_delivery_is_ignored(self) -> None:
        given(DECIDER, CREATED, delivered(12)).when(Reported(delivered(12), 1)).then()
        given(DECIDER, CREATED, delivered(12)).when(Reported(delivered(11), 1)).then()
        given(DECIDER, CREATED, delivered(12)).when(Reported(disabled(12), 1)).then()

    def test_delivery_started_before_replay_or_skip_is_ignored(self) -> None:
        given(DECIDER, CREATED, delivered(12), replayed(12, 0)).when(Reported(delivered(13), 1)).then()
        given(DECIDER, CREATED, delivered(12), replayed(12, 0)).when(Reported(delivered(1), 3)).then(delivered(1))
        given(DECIDER, CREATED, resumed(10, 20)).when(Reported(disabled(21), 1)).then()

    def test_delivery_to_disabled_or_deleted_endpoint_is_ignored(self) -> None:
        given(DECIDER, CREATED, disabled(11)).when(Reported(delivered(11), 1)).then()
        given(DECIDER, CREATED, disabled(11)).when(Reported(disabled(11), 1)).then()
        given(DECIDER, CREATED, DELETED).when(Reported(delivered(11), 1)).then()

    def test_resuming_active_endpoint_changes_nothing(self) -> None:
        given(DECIDER, CREATED).when(resume()).then()

    def test_resume_continues_with_undelivered_change(self) -> None:
        given(DECIDER, CREATED, delivered(12), disabled(13)).when(resume()).then(resumed(12, 12))

    def test_skip_moves_cursor_to_revision(self) -> None:
        given(DECIDER, CREATED, delivered(12), disabled(13)).when(resume(13)).then(resumed(12, 13))
        given(DECIDER, CREATED, delivered(12)).when(resume(15)).then(resumed(12, 15))

    def test_skip_backwards_is_rejected(self) -> None:
        given(DECIDER, CREATED, delivered(12), disabled(13)).when(resume(12)).then_rejected("SKIP_BEHIND")

    def test_replay_moves_cursor_back_only(self) -> None:
        given(DECIDER, CREATED, delivered(12)).when(replay(3)).then(replayed(12, 3))
        given(DECIDER, CREATED, delivered(12), disabled(13)).when(replay(12)).then(replayed(12, 12))
        given(DECIDER, CREATED, delivered(12)).when(replay(13)).then_rejected("REPLAY_AHEAD")

    def test_event_at_cursor_is_known_only_after_delivery(self) -> None:
        assert given(DECIDER, CREATED, delivered(12)).state.cursor_event == "12"
        assert given(DECIDER, CREATED, delivered(12), disabled(13), resumed(12, 12)).state.cursor_event == "12"
        assert not given(DECIDER, CREATED, delivered(12), replayed(12, 3)).state.cursor_event


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        decide(v1.ListWebhooksRequest(), State())


commands = st.one_of(
    st.builds(delivered, st.integers(1, 30)),
    st.builds(disabled, st.integers(1, 30)),
    st.builds(resume, st.none() | st.integers(0, 30)),
    st.builds(replay, st.integers(0, 30)),
)


@for_all(st.lists(st.tuples(commands, st.booleans()), max_size=30))
def test_any_commands_move_cursor_as_events_say(steps: list[tuple[Message, bool]]) -> None:
    """Deliveries only advance the cursor; outdated ones and those to a disabled endpoint are ignored."""
    state = evolve(State(), RecordedEvent("", 1, 0, "", CREATED, Metadata("a"), 1))
    for number, (message, current) in enumerate(steps, 2):
        is_report = isinstance(message, v1.WebhookDelivered | v1.WebhookParked)
        command = Reported(message, state.epoch if current else state.epoch - 1) if is_report else message  # type: ignore[arg-type]
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
