"""Release sets: several aliases that move at one revision or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from eventstore import (
    MAX_APPEND_EVENTS,
    Kind,
    Rejected,
)
from rollforward import v1
from services.registry.deciders.state import State


def move_of(target: v1.AliasTarget, request: v1.MoveAliasesRequest) -> v1.MoveAliasRequest:
    """Return the move of one target, as a request of its own."""
    return v1.MoveAliasRequest(
        model=target.model,
        alias=target.alias,
        version=target.version,
        expected_revision=target.expected_revision if target.HasField("expected_revision") else None,
        reason=request.reason,
        epoch=request.epoch,
    )


def kept_alias(target: v1.AliasTarget, state: State) -> v1.AliasKept:
    """Return the event of a target that is at its version already."""
    digest = state.digest(target.version)
    return v1.AliasKept(model=target.model, alias=target.alias, version=target.version, digest=digest)


def check_release_set(request: v1.MoveAliasesRequest) -> None:
    """Check the number of targets, and that each alias is named once.

    Raises:
        Rejected: INVALID_RELEASE_SET.
    """
    targets = [(target.model, target.alias) for target in request.targets]
    if not targets or len(targets) > MAX_APPEND_EVENTS:
        message = f"invalid release set: expected 1 to {MAX_APPEND_EVENTS} aliases, got {len(targets)}"
    elif duplicate := _duplicate(targets):
        message = f"duplicate alias in the release set: {duplicate[0]}@{duplicate[1]}"
    else:
        return
    raise Rejected(Kind.INVALID, "INVALID_RELEASE_SET", message)


def _duplicate(targets: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the first target that was there before, None when all differ."""
    known: set[tuple[str, str]] = set()
    for target in targets:
        if target in known:
            return target
        known.add(target)
    return None


class Target(NamedTuple):
    """A move to evaluate gates for; `skip` those that allow it if a recent version comes back."""

    model: str
    alias: str
    version: int
    skip: bool = False
