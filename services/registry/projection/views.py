"""The messages that rows and events are shown as: a change of an alias, and an alias."""

from __future__ import annotations

from typing import Any

from eventstore import RecordedEvent
from rollforward import v1


def change_of(event: RecordedEvent) -> v1.AliasChange:
    """Return an event that changes an alias, as watchers and readers of the history see it."""
    payload = event.data
    assert isinstance(payload, (v1.AliasMoved, v1.AliasRemoved))  # noqa: S101
    # Message fields are set by name in one call, and the time in place: this runs once for each event of a rebuild.
    change = v1.AliasChange(
        revision=event.append_end,
        position=event.position,
        event_id=event.id,
        actor=event.metadata.actor,
        reason=event.metadata.reason,
        request_id=event.metadata.request_id,
        model=payload.model,
        alias=payload.alias,
        from_version=payload.from_version,
        from_digest=payload.from_digest,
        cause=payload.cause,
        policy_revision=payload.policy_revision,
        **_assignment(payload),
    )
    change.time.seconds, change.time.nanos = divmod(event.time, 1_000_000_000)
    return change


def alias_of(change: v1.AliasChange, model: str = "") -> v1.Alias:
    """Return the assignment that a change made, under the name that the model has now, if given."""
    return v1.Alias(
        model=model or change.model,
        alias=change.alias,
        version=change.to_version,
        digest=change.to_digest,
        revision=change.revision,
        moved_at=change.time,
        actor=change.actor,
        reason=change.reason,
        cause=change.cause,
        expires_at=change.expires_at if change.HasField("expires_at") else None,
    )


def _assignment(payload: v1.AliasMoved | v1.AliasRemoved) -> dict[str, Any]:
    if isinstance(payload, v1.AliasRemoved):
        return {}
    values: dict[str, Any] = {
        "to_version": payload.to_version,
        "to_digest": payload.to_digest,
        "restored_revision": payload.restored_revision,
        "schedule_id": payload.schedule_id,
        "evidence": payload.evidence or None,
        "skipped_gates": payload.skipped_gates or None,
    }
    if payload.HasField("expires_at"):
        values["expires_at"] = payload.expires_at
    return values
