"""The guarantees of a watch, by etcd's names, checked on everything that each watcher received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.truth import Truth
from tests.histories.recorded.recording import Change, Event, History, Step, Stream


def check_watches(truth: Truth) -> Iterator[Violation]:
    """Run all checks of all watchers."""
    history = truth.history
    for watcher in dict.fromkeys(stream.watcher for stream in history.streams):
        streams = [stream for stream in history.streams if stream.watcher == watcher]
        yield from _by_sdk(streams[0], history) if streams[0].by_sdk else _Life(truth).check(streams)
        last = max((step.position for stream in streams for step in stream.steps), default=0)
        if last < history.goal:
            yield Violation(Rule.WATCH_COMES_THROUGH, f"{watcher} reached {last}, expected {history.goal}")


class _Life:
    """A watcher's life so far: what it received, the position it reached and by which step."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._events = {event.event_id: event for event in truth.history.events}
        self._received: set[str] = set()
        self._reached = 0
        self._reached_by = ""

    def check(self, streams: Sequence[Stream]) -> Iterator[Violation]:
        """Check the streams of one watcher, a stream for each connection."""
        for stream in streams:
            if stream.resumed_at is not None:
                self._reached, self._reached_by = stream.resumed_at, "resume"
            for number, step in enumerate(stream.steps):
                for rule, about in self._check_step(stream, step, is_first=number == 0):
                    yield Violation(rule, f"{stream.watcher}, resumed at {stream.resumed_at}: {about}")
                self._reached, self._reached_by = max(self._reached, step.position), step.kind

    def _check_step(self, stream: Stream, step: Step, *, is_first: bool) -> Iterator[tuple[Rule, str]]:
        if (step.kind == "snapshot") != (is_first and stream.resumed_at is None):
            yield Rule.WATCH_SNAPSHOT, f"{step} where a snapshot is due or not"
        if step.kind == "snapshot":
            yield from self._check_snapshot(stream, step)
            return
        if step.position < self._reached:
            yield self._behind(), f"{step} after {self._reached}"
        for change in step.changes:
            yield from self._check_change(change)
        yield from self._check_whole(stream, step)
        yield from self._check_gap(stream, step)
        self._received |= {change.event_id for change in step.changes}

    def _check_snapshot(self, stream: Stream, step: Step) -> Iterator[tuple[Rule, str]]:
        followed = {event.target for event in self._truth.history.events if stream.follows(event)}
        stood = {self._truth.timeline(target).at(step.position) for target in followed}
        expected = {assigned for assigned in stood if assigned.version}
        if set(step.aliases) != expected or len(step.aliases) != len(expected):
            yield Rule.WATCH_SNAPSHOT, f"{step}: expected {expected}"

    def _check_change(self, change: Change) -> Iterator[tuple[Rule, str]]:
        if change.event_id in self._received:
            yield Rule.WATCH_UNIQUE, f"{change} again"
        elif change.revision <= self._reached:
            yield self._behind(), f"{change} after {self._reached}"
        event = self._events.get(change.event_id)
        if event is None or event.change != change:
            yield Rule.WATCH_TRUE, f"{change} of {event}"

    def _behind(self) -> Rule:
        """Return the rule that a step at or before the position reached breaks."""
        rules = {"bookmark": Rule.WATCH_BOOKMARKABLE, "resume": Rule.WATCH_RESUMABLE}
        return rules.get(self._reached_by, Rule.WATCH_ORDERED)

    def _check_whole(self, stream: Stream, step: Step) -> Iterator[tuple[Rule, str]]:
        if step.kind != "changes":
            return
        revisions = {change.revision for change in step.changes}
        if revisions != {step.position}:
            yield Rule.WATCH_ATOMIC, f"{step} has changes of {sorted(revisions)}"
        whole = [
            event.event_id
            for event in self._truth.history.events
            if event.revision in revisions and stream.follows(event)
        ]
        ids = [change.event_id for change in step.changes]
        if len(set(ids)) != len(ids):
            yield Rule.WATCH_UNIQUE, f"{step}"
        if missing := set(whole) - set(ids):
            yield Rule.WATCH_ATOMIC, f"{step} is without {missing}"
        elif [one for one in ids if one in whole] != whole:
            yield Rule.WATCH_ORDERED, f"{step}, in the log {whole}"

    def _check_gap(self, stream: Stream, step: Step) -> Iterator[tuple[Rule, str]]:
        """Check that nothing between the position reached and this step's is skipped."""
        got = {change.event_id for change in step.changes}
        missed = [
            event
            for event in self._truth.history.events
            if self._reached < event.revision < step.position + (step.kind == "bookmark")
            and stream.follows(event)
            and event.event_id not in got | self._received
        ]
        if missed:
            rule = Rule.WATCH_RESUMABLE if self._reached_by == "resume" else Rule.WATCH_RELIABLE
            yield rule, f"{step} after {self._reached}, without {missed}"


def _by_sdk(stream: Stream, history: History) -> Iterator[Violation]:
    """Check the changes of a watch of the SDK across all reconnects: complete, each once, in order."""
    got = [change for step in stream.steps for change in step.changes]
    start = stream.resumed_at or 0
    end = stream.steps[-1].position if stream.steps else start
    due = [event for event in history.events if stream.follows(event) and start < event.revision <= end]
    ids = [change.event_id for change in got]
    if len(set(ids)) != len(ids):
        yield Violation(Rule.WATCH_UNIQUE, f"{stream.watcher}: {ids}")
    if missed := [event for event in due if event.event_id not in ids]:
        yield Violation(Rule.WATCH_RELIABLE, f"{stream.watcher} misses {missed}")
    yield from _same(stream, got, due)


def _same(stream: Stream, got: Sequence[Change], due: Sequence[Event]) -> Iterator[Violation]:
    events = {event.event_id: event for event in due}
    for change in got:
        event = events.get(change.event_id)
        if event is None or event.change != change:
            yield Violation(Rule.WATCH_TRUE, f"{stream.watcher}: {change} of {event}")
    for before, after in pairwise(got):
        if after.revision < before.revision:
            yield Violation(Rule.WATCH_ORDERED, f"{stream.watcher}: {after} after {before}")
