"""The body of a webhook request, from an event of the registry log."""

from __future__ import annotations

import json

from eventstore import RecordedEvent
from rollforward import v1
from services.listings.globs import matcher
from services.timestamps import timestamp

LOG = "registry"


def wants(settings: v1.WebhookSettings, event: RecordedEvent) -> bool:
    """Return whether an endpoint receives an event."""
    match event.data:
        case v1.AliasMoved(model=model, alias=alias):
            kind = v1.WEBHOOK_CHANGE_KIND_MOVED
        case v1.AliasRemoved(model=model, alias=alias):
            kind = v1.WEBHOOK_CHANGE_KIND_REMOVED
        case _:
            return False
    return kind in settings.changes and bool(matcher(settings.model)(model) and matcher(settings.alias)(alias))


def body_of(event: RecordedEvent) -> str:
    """Return a change of an alias as JSON; the same event always gives the same text."""
    payload = event.data
    assert isinstance(payload, v1.AliasMoved | v1.AliasRemoved)  # noqa: S101
    moved = payload if isinstance(payload, v1.AliasMoved) else None
    data = {
        "log": LOG,
        "sequence": event.position,
        "revision": event.append_end,
        "event_id": event.id,
        "model": payload.model,
        "alias": payload.alias,
        "from": _current(payload.from_version, payload.from_digest),
        "to": _current(moved.to_version, moved.to_digest) if moved else None,
        "cause": v1.AliasCause.Name(payload.cause).removeprefix("ALIAS_CAUSE_").lower(),
        "restored_revision": (moved.restored_revision if moved else 0) or None,
        "actor": event.metadata.actor,
        "reason": event.metadata.reason,
        "request_id": event.metadata.request_id,
    }
    return _json("alias.moved" if moved else "alias.removed", event.time, data)


def body_of_test(webhook_id: str, now: int) -> str:
    """Return the body of a test request; `now` is in nanoseconds since 1970."""
    return _json("webhook.test", now, {"webhook_id": webhook_id})


def _current(version: int, digest: str) -> dict[str, object] | None:
    return {"version": version, "digest": digest} if version else None


def _json(kind: str, time_ns: int, data: dict[str, object]) -> str:
    body = {"type": kind, "timestamp": timestamp(time_ns).ToJsonString(), "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
