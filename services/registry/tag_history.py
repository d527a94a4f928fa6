"""The tags that models had at past revisions: folded from a model's stream when somebody asks, and kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from cachetools import LRUCache

from eventstore import EventStore, RecordedEvent
from rollforward import v1
from services.registry import model_stream

KEPT_MODELS = 10_000

Changes = list[tuple[int, Mapping[str, str]]]
"""The positions at which a model's tags changed, each with the tags from then on."""

_NO_TAGS: Mapping[str, str] = {}


class TagHistory:
    """By model, its tags after each change of them.

    Args:
        store: The registry log.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._models: LRUCache[str, Changes] = LRUCache(KEPT_MODELS)

    def __contains__(self, origin: str) -> bool:
        return origin in self._models

    async def read(self, origin: str) -> Changes:
        """Read the changes of a model's tags from its stream."""
        changes: Changes = []
        async for event in self._store.read(model_stream(origin)):
            if changes_tags(event):
                changes.append((event.position, tags_after(changes[-1][1] if changes else _NO_TAGS, event)))
        return changes

    def keep(self, origin: str, changes: Changes) -> None:
        """Keep all changes of a model's tags."""
        self._models[origin] = changes

    def add(self, origin: str, event: RecordedEvent) -> None:
        """Note a change of tags of a model, if the model's history is kept and does not have it."""
        changes = self._models.get(origin)
        if changes is not None and (not changes or changes[-1][0] < event.position):
            changes.append((event.position, tags_after(changes[-1][1] if changes else _NO_TAGS, event)))

    def at(self, origin: str, position: int) -> Mapping[str, str]:
        """Return the tags that a model, whose changes are kept, had at a position."""
        changes = self._models[origin]
        number = bisect_right(changes, position, key=lambda change: change[0])
        return changes[number - 1][1] if number else _NO_TAGS


def changes_tags(event: RecordedEvent) -> bool:
    """Return whether a model's tags may be others after an event."""
    return isinstance(event.data, (v1.ModelCreated, v1.ModelTagsChanged))


def tags_after(tags: Mapping[str, str], event: RecordedEvent) -> dict[str, str]:
    """Return a model's tags after an event that changes them."""
    if isinstance(event.data, v1.ModelCreated):
        return dict(event.data.tags)
    assert isinstance(event.data, v1.ModelTagsChanged)  # noqa: S101 - see changes_tags
    after = dict(tags)
    for change in event.data.changes:
        if change.HasField("to_value"):
            after[change.key] = change.to_value
        else:
            after.pop(change.key, None)
    return after
