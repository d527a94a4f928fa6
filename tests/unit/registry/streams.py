"""Builders of model streams for the tests of the registry's rules."""

from __future__ import annotations

from google.protobuf.message import Message

from eventstore.testing import Given, given
from rollforward import v1
from services.registry.deciders.aliases import Move, Remove
from services.registry.deciders.models import DECIDER
from services.registry.deciders.state import State

CREATED = v1.ModelCreated(model="fraud")
D1, D2, D3 = (f"sha256:{digit * 64}" for digit in "123")
REQUEST = v1.ALIAS_CAUSE_REQUEST
TWO_VERSIONS = (
    CREATED,
    v1.VersionRegistered(model="fraud", version=1, digest=D1),
    v1.VersionRegistered(model="fraud", version=2, digest=D2),
)


def moved(before: int, after: int, alias: str = "champion") -> v1.AliasMoved:
    """Return the event of a moved alias, the champion by default."""
    return v1.AliasMoved(
        model="fraud",
        alias=alias,
        from_version=before,
        to_version=after,
        from_digest={0: "", 1: D1, 2: D2}[before],
        to_digest={1: D1, 2: D2}[after],
        cause=REQUEST,
    )


def removed(before: int, cause: v1.AliasCause.ValueType = REQUEST) -> v1.AliasRemoved:
    """Return the event of the removed champion."""
    return v1.AliasRemoved(
        model="fraud", alias="champion", from_version=before, from_digest={1: D1, 2: D2}[before], cause=cause
    )


def after(*events: Message) -> Given[State]:
    """Return a stream with two versions, at positions 2 and 3, and then these events, from position 4."""
    return given(DECIDER, *TWO_VERSIONS, *events)


def move(version: int, alias: str = "champion", expected: int | None = None) -> Move:
    """Return a command that moves an alias."""
    return Move(v1.MoveAliasRequest(model="fraud", alias=alias, version=version, expected_revision=expected))


def remove(expected: int | None = None, alias: str = "champion") -> Remove:
    """Return a command that removes an alias."""
    return Remove(v1.RemoveAliasRequest(model="fraud", alias=alias, expected_revision=expected))
