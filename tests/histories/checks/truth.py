"""The state at every position of the log: the reference for the checks."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.histories.recorded.recording import UNKNOWN, Assignment, Event, History, Operation, Target, by_target


class Timeline:
    """One alias, at every position of the log."""

    def __init__(self, target: Target, events: Sequence[Event]) -> None:
        self.target = target
        self.events = events
        self._revisions = [event.revision for event in events]

    def at(self, position: int) -> Assignment:
        """Return the assignment at a position."""
        return self._after(bisect.bisect_right(self._revisions, position))

    def states(self) -> Iterator[tuple[Assignment, Event | None, Event | None]]:
        """Yield each state, the event that made it and the one that ended it."""
        for number in range(len(self.events) + 1):
            made_by = self.events[number - 1] if number else None
            ended_by = self.events[number] if number < len(self.events) else None
            yield self._after(number), made_by, ended_by

    def _after(self, number: int) -> Assignment:
        last = self.events[number - 1] if number else None
        return Assignment(*self.target, last.to_version, last.revision) if last else Assignment(*self.target, 0, 0)


@dataclass(frozen=True, slots=True)
class Command:
    """Everything sent with one request id; `returned` is infinite while no response acknowledges it.

    A result "unchanged" leaves no trace: a retry may find something to change.
    """

    operations: tuple[Operation, ...]

    @property
    def called(self) -> float:
        """Return when the request was first sent."""
        return min(one.called for one in self.operations)

    @property
    def returned(self) -> float:
        """Return when the request was first known to be done."""
        done = [one.returned for one in self.operations if one.moved and one.returned is not None]
        return min(done, default=math.inf)

    @property
    def may_be_done(self) -> bool:
        """Return whether some response acknowledged the request, or none came."""
        return any(one.outcome == UNKNOWN or one.moved for one in self.operations)


class Truth:
    """The log of a history, and the commands that made it."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._timelines = {target: Timeline(target, events) for target, events in by_target(history.events).items()}
        sent: dict[str, list[Operation]] = {}
        for operation in history.operations:
            if operation.request_id:
                sent.setdefault(operation.request_id, []).append(operation)
        self.commands = {request_id: Command(tuple(operations)) for request_id, operations in sent.items()}
        self.events_of: dict[str, list[Event]] = {}
        for event in history.events:
            self.events_of.setdefault(event.request_id, []).append(event)

    def timeline(self, target: Target) -> Timeline:
        """Return one alias at every position."""
        return self._timelines.get(target) or Timeline(target, [])

    @property
    def targets(self) -> Sequence[Target]:
        """Return every alias that ever changed."""
        return list(self._timelines)

    def could_be_seen(self, state: Assignment, begun: float, ended: float) -> bool:
        """Return whether a state can have been current at some moment of a span of time."""
        for assigned, made_by, ended_by in self.timeline(state.target).states():
            if assigned == state:
                return self.asked(made_by) < ended and self.done(ended_by) > begun
        return False

    def asked(self, event: Event | None) -> float:
        """Return the earliest moment at which an event can have been appended."""
        command = self.commands.get(event.request_id) if event else None
        return command.called if command else -math.inf

    def done(self, event: Event | None) -> float:
        """Return the latest moment at which an event can have been appended."""
        command = self.commands.get(event.request_id) if event else None
        return command.returned if command else math.inf
