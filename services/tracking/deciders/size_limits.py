"""Size limits: a run, experiment or logged model, without its metrics, must fit a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rpds import HashTrieMap

from eventstore import MAX_EVENT_BYTES, Kind, Rejected
from rollforward import v1

LARGEST_RUN = LARGEST_LOGGED_MODEL = 3_000_000
"""The maximum size in bytes of a run or logged model without metrics: a response has at most 4 MiB."""

LARGEST_EXPERIMENT = MAX_EVENT_BYTES
"""The maximum size in bytes of an experiment's tags, which are kept in memory."""

Part: TypeAlias = tuple[str, ...]
"""A part of an object: its kind, and its key within the kind."""

_FRAME = 11  # bytes around a part, at most: a field's number and length, twice within a map


@dataclass(frozen=True, slots=True)
class SizeBudget:
    """A size budget: the bytes that each part of an object takes in a response, and their sum."""

    parts: HashTrieMap[Part, int] = field(default_factory=HashTrieMap)
    taken: int = 0

    def put(self, new: Iterable[tuple[Part, int]]) -> SizeBudget:
        """Return the budget with parts of these sizes set."""
        parts, taken = self.parts, self.taken
        for part, size in new:
            taken += size + _FRAME - parts.get(part, 0)
            parts = parts.insert(part, size + _FRAME)
        return SizeBudget(parts, taken)

    def drop(self, part: Part) -> SizeBudget:
        """Return the budget without a part."""
        return SizeBudget(self.parts.discard(part), self.taken - self.parts.get(part, 0))

    def put_labels(self, kind: str, labels: Mapping[str, str]) -> SizeBudget:
        """Return the budget with parameters or tags set."""
        return self.put(((kind, key), len(key.encode()) + len(value.encode())) for key, value in labels.items())

    def change_tags(self, changes: Iterable[v1.TagChange]) -> SizeBudget:
        """Return the budget after changes of tags."""
        budget = self
        for change in changes:
            put = change.HasField("to_value")
            budget = (
                budget.put_labels("tag", {change.key: change.to_value}) if put else budget.drop(("tag", change.key))
            )
        return budget

    def check_growth(self, before: SizeBudget, limit: int, reason: str, **details: Any) -> None:
        """Raise `Rejected` with this reason if the object grows beyond the limit."""
        if self.taken > max(limit, before.taken):
            message = f"too large: it would have {self.taken} bytes without metrics, expected at most {limit}"
            raise Rejected(Kind.PRECONDITION, reason, message, size=str(self.taken), limit=str(limit), **details)
