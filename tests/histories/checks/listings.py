"""The checks of listings: complete, without duplicates, without invented entries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import History
from tests.histories.recorded.subjects import IndexScan


def check_listings(history: History) -> Iterator[Violation]:
    """Check every walk."""
    gone = _renamed(history)
    models = {event.name for event in history.named}
    changes = {f"{event.revision}@{event.alias}" for event in history.events if event.model == f"{history.name}-a"}
    for walk in history.walks:
        due = [entry for entry in walk.known if gone.get(entry, math.inf) > walk.returned]
        if missing := set(due) - set(walk.entries):
            yield Violation(Rule.LISTING_COMPLETE, f"{_about(walk)} misses {sorted(missing)[:5]}")
        if duplicates := [entry for entry, count in Counter(walk.entries).items() if count > 1]:
            yield Violation(Rule.LISTING_UNIQUE, f"{_about(walk)} has {duplicates[:5]} more than once")
        known = {"models": models, "history": changes}.get(walk.listing)
        if known is not None and (foreign := set(walk.entries) - known):
            yield Violation(Rule.LISTING_TRUE, f"{_about(walk)} has invented {sorted(foreign)[:5]}")
        if walk.listing == "history" and not _is_newest_first(walk):
            yield Violation(Rule.LISTING_ORDERED, f"{_about(walk)}: {walk.entries[:10]}")


def _renamed(history: History) -> Mapping[str, int]:
    """Return when each name may have been given up at the earliest."""
    times: dict[str, int] = {}
    for naming in history.namings:
        if naming.kind == "rename":
            times[naming.name] = min(times.get(naming.name, naming.called), naming.called)
    return times


def _about(walk: IndexScan) -> str:
    return f"{walk.listing}, walked from {walk.called} to {walk.returned}"


def _is_newest_first(walk: IndexScan) -> bool:
    revisions = [int(entry.partition("@")[0]) for entry in walk.entries]
    return revisions == sorted(revisions, reverse=True)
