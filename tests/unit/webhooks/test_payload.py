"""Webhook payloads: which events an endpoint receives, and what the body has."""

from __future__ import annotations

import json

import pytest
from google.protobuf.message import Message

from eventstore.event import Metadata, RecordedEvent
from rollforward import v1
from services.webhooks.decider import ALL_CHANGES
from services.webhooks.payload import body_of, body_of_test, wants

D1, D2 = (f"sha256:{digit * 64}" for digit in "12")
MOVED = v1.AliasMoved(
    model="fraud-detector",
    alias="champion",
    from_version=1,
    to_version=2,
    from_digest=D1,
    to_digest=D2,
    cause=v1.ALIAS_CAUSE_ROLLBACK,
    restored_revision=17,
)
REMOVED = v1.AliasRemoved(
    model="fraud-detector", alias="champion", from_version=2, from_digest=D2, cause=v1.ALIAS_CAUSE_EXPIRY
)


def recorded(payload: Message) -> RecordedEvent:
    """Return the event as recorded in the log, the second of an append of three."""
    metadata = Metadata("Zoë", reason="worse", request_id="r")
    return RecordedEvent("model/fraud-detector", 41, 1_700_000_000_123_456_789, "e" * 32, payload, metadata, 42)


@pytest.mark.parametrize(
    ("model", "alias", "changes", "received"),
    [
        ("*", "*", ALL_CHANGES, True),
        ("fraud-*", "champ?on", ALL_CHANGES, True),
        ("fraud-*", "[a-d]*", [v1.WEBHOOK_CHANGE_KIND_MOVED], True),
        ("FRAUD-*", "*", ALL_CHANGES, False),
        ("fraud", "*", ALL_CHANGES, False),
        ("*", "candidate", ALL_CHANGES, False),
        ("*", "*", [v1.WEBHOOK_CHANGE_KIND_REMOVED], False),
    ],
)
def test_endpoint_receives_changes_that_match_its_filters(
    model: str, alias: str, changes: list[v1.WebhookChangeKind.ValueType], received: bool
) -> None:
    settings = v1.WebhookSettings(model=model, alias=alias, changes=changes)
    assert wants(settings, recorded(MOVED)) is received


def test_escaped_pattern_matches_model_with_wildcard_in_name() -> None:
    settings = v1.WebhookSettings(model="fraud[*]", alias="*", changes=ALL_CHANGES)
    moved = {name: recorded(v1.AliasMoved(model=name, alias="champion")) for name in ("fraud*", "fraud-detector")}
    assert {name: wants(settings, event) for name, event in moved.items()} == {"fraud*": True, "fraud-detector": False}


def test_endpoint_receives_only_alias_changes() -> None:
    settings = v1.WebhookSettings(model="*", alias="*", changes=ALL_CHANGES)
    assert wants(settings, recorded(REMOVED))
    assert not wants(settings, recorded(v1.ModelCreated(model="fraud-detector")))


def test_body_of_move_is_complete() -> None:
    assert json.loads(body_of(recorded(MOVED))) == {
        "type": "alias.moved",
        "timestamp": "2023-11-14T22:13:20.123456789Z",
        "data": {
            "log": "registry",
            "sequence": 41,
            "revision": 42,
            "event_id": "e" * 32,
            "model": "fraud-detector",
            "alias": "champion",
            "from": {"version": 1, "digest": D1},
            "to": {"version": 2, "digest": D2},
            "cause": "rollback",
            "restored_revision": 17,
            "actor": "Zoë",
            "reason": "worse",
            "request_id": "r",
        },
    }


def test_missing_version_is_null() -> None:
    removed = json.loads(body_of(recorded(REMOVED)))
    assert removed["type"] == "alias.removed"
    assert (removed["data"]["from"], removed["data"]["to"]) == ({"version": 2, "digest": D2}, None)
    assert (removed["data"]["cause"], removed["data"]["restored_revision"]) == ("expiry", None)
    first = v1.AliasMoved(model="m", alias="a", to_version=1, to_digest=D1, cause=v1.ALIAS_CAUSE_REQUEST)
    assert json.loads(body_of(recorded(first)))["data"]["from"] is None


def test_test_delivery_has_its_own_type() -> None:
    assert json.loads(body_of_test("hook", 0))["type"] == "webhook.test"
