"""Parameters and tags of experiments, runs and logged models: their limits and their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from rpds import HashTrieMap

from eventstore import Kind, Rejected
from rollforward import v1
from services.validation import MAX_KEY_LENGTH, MAX_TAG_LENGTH, check_key

MAX_PARAM_LENGTH = 6000

Labels: TypeAlias = "HashTrieMap[str, str]"


def check_params(params: Mapping[str, str]) -> None:
    """Raise `Rejected` INVALID_KEY or INVALID_VALUE."""
    for key, value in params.items():
        check_key(key, "parameter key")
        _check_length(key, value, "parameter", MAX_PARAM_LENGTH)


def check_tags(tags: Mapping[str, str], max_length: int = MAX_TAG_LENGTH) -> None:
    """Raise `Rejected` INVALID_KEY or INVALID_VALUE."""
    for key, value in tags.items():
        check_key(key, "tag key")
        _check_length(key, value, "tag", max_length)


def _check_length(key: str, value: str, kind: str, max_length: int) -> None:
    if len(value) > max_length:
        message = f"{kind} {key!r} is too long: expected at most {max_length} characters, got {len(value)}"
        raise Rejected(Kind.INVALID, "INVALID_VALUE", message, key=key)


def check_removed(removed: Iterable[str], wanted: Mapping[str, str]) -> None:
    """Raise `Rejected` INVALID_KEY when a tag to remove is no valid key, or is set by the same request."""
    for key in removed:
        # Logs may hold tags whose keys could not be set today.
        if not 1 <= len(key) <= MAX_KEY_LENGTH:
            message = f"invalid tag key: expected 1 to {MAX_KEY_LENGTH} characters, got {len(key)}"
            raise Rejected(Kind.INVALID, "INVALID_KEY", message, key=key[:MAX_KEY_LENGTH])
        if key in wanted:
            raise Rejected(
                Kind.INVALID, "INVALID_KEY", f"tag {key!r} is both set and removed. Do one of the two", key=key
            )


def new_params(params: Mapping[str, str], current: Labels, **about: Any) -> dict[str, str]:
    """Return the parameters that are new. Raises `Rejected` PARAM_CHANGED when one exists with another value."""
    for key, value in params.items():
        was = current.get(key)
        if was is not None and was != value:
            message = f"parameter {key!r} is already {was[:200]!r}, got {value[:200]!r}. Use another key or a tag"
            raise Rejected(Kind.PRECONDITION, "PARAM_CHANGED", message, key=key, **about)
    return {key: value for key, value in params.items() if key not in current}


def tag_changes(tags: Labels, wanted: Mapping[str, str], removed: Sequence[str]) -> list[v1.TagChange]:
    """Return kind setting and removing tags changes, by key."""
    changes = [
        v1.TagChange(key=key, from_value=tags.get(key), to_value=value)
        for key, value in wanted.items()
        if tags.get(key) != value
    ]
    changes += [v1.TagChange(key=key, from_value=tags[key]) for key in set(removed) if key in tags]
    return sorted(changes, key=lambda change: change.key)


def changed(tags: Labels, changes: Iterable[v1.TagChange]) -> Labels:
    """Return the tags after changes."""
    for change in changes:
        tags = tags.insert(change.key, change.to_value) if change.HasField("to_value") else tags.discard(change.key)
    return tags


def added(labels: Labels, more: Mapping[str, str]) -> Labels:
    """Return labels with more labels added."""
    for key, value in more.items():
        labels = labels.insert(key, value)
    return labels
