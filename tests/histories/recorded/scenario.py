"""A valid history made by hand, step by step, for the checker's own tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.checks.truth import Timeline
from tests.histories.recorded.recording import (
    OK,
    REFUSED,
    UNKNOWN,
    Assignment,
    Change,
    Event,
    History,
    Intent,
    Operation,
    Step,
    Stream,
    Target,
)

CHAMPION, CANARY, OTHER = Target("m", "champion"), Target("m", "canary"), Target("n", "champion")
START = 10


class Scenario:
    """Operations one after the other, each with its event; each advances the time by ten."""

    def __init__(self) -> None:
        self.history = History("story")
        self._time = 0
        self._position = START

    def move(self, version: int, expected: int | None = None, client: str = "ann") -> int:
        """Add a successful move of the champion; return its revision."""
        return self._do("move", {CHAMPION: (version, expected)}, client)

    def release(self, champion: int, canary: int) -> int:
        """Add a successful release set; return its revision."""
        return self._do("release set", {CHAMPION: (champion, None), CANARY: (canary, None)}, "ann")

    def move_other(self, version: int) -> int:
        """Add a successful move of another model's champion; return its revision."""
        return self._do("move", {OTHER: (version, None)}, "dan")

    def remove(self) -> int:
        """Add a successful removal; return its revision."""
        return self._do("remove", {CHAMPION: (0, None)}, "ann")

    def roll_back(self, restored: int) -> int:
        """Add a successful rollback of the champion to a position; return its revision."""
        version = self.assigned(CHAMPION, restored).version
        done = self._do("rollback", {CHAMPION: (version, None)}, "ann", restored=restored)
        self.change_last(wanted=(Intent(*CHAMPION),), at=restored)
        return done

    def move_unchanged(self, client: str = "ann") -> None:
        """Add a move of the champion to its current version."""
        assigned = self.assigned(CHAMPION)
        self._tell(
            "move", (Intent(*CHAMPION, assigned.version),), client, OK, told=(assigned,), position=assigned.revision
        )

    def move_rejected(self, expected: int, client: str = "bob") -> None:
        """Add a rejected conditional move, with the current state."""
        returned = (self.assigned(CHAMPION),)
        wanted = (Intent(*CHAMPION, 3, expected),)
        self._tell("move", wanted, client, REFUSED, reason="WRONG_REVISION", told=returned)

    def move_unanswered(self, version: int, *, written: bool) -> None:
        """Add a move that got no response."""
        if written:
            self._do("move", {CHAMPION: (version, None)}, "cyd")
            self.change_last(outcome=UNKNOWN, returned=None, told=(), position=0, moved=False)
        else:
            self._tell("move", (Intent(*CHAMPION, version),), "cyd", UNKNOWN)

    def resolve(self, client: str = "bob", at: int | None = None) -> None:
        """Add a resolve of the champion; "not set" where it is not."""
        position = self._position if at is None else at
        assigned = self.assigned(CHAMPION, position)
        kind = "resolve" if at is None else "resolve as of"
        if assigned.version:
            self._tell(kind, (Intent(*CHAMPION),), client, OK, told=(assigned,), position=position, at=at)
        else:
            self._tell(kind, (Intent(*CHAMPION),), client, REFUSED, reason="ALIAS_NOT_FOUND", at=at)

    def repeat_last(self) -> None:
        """Retry the last request."""
        last = self.history.operations[-1]
        self._time += 10
        self.history.operations.append(replace(last, called=self._time, returned=self._time + 5))

    def assigned(self, target: Target, position: int | None = None) -> Assignment:
        """Return the assignment now, or at a position."""
        events = [event for event in self.history.events if event.target == target]
        return Timeline(target, events).at(self._position if position is None else position)

    def change_last(self, **fields: object) -> None:
        """Change fields of the last operation."""
        self.change(-1, **fields)

    def change(self, number: int, **fields: object) -> None:
        """Change fields of an operation."""
        self.history.operations[number] = replace(self.history.operations[number], **fields)  # type: ignore[arg-type]

    def change_event(self, number: int, **fields: object) -> None:
        """Change fields of an event."""
        self.history.events[number] = replace(self.history.events[number], **fields)  # type: ignore[arg-type]

    def watch(self, *resumes: int) -> None:
        """Add a watcher from the beginning that resumed at these positions, and one of the SDK."""
        self.history.goal = end = self._position
        for first, last in zip([START, *resumes], [*resumes, end], strict=True):
            self.history.streams.append(Stream("w", "m", "", first, steps=self.steps(first, last)))
        changes = [Step("changes", event.revision, (event.change,)) for event in self.history.events]
        self.history.streams.append(Stream("s", "m", "", START, by_sdk=True, steps=[*changes, Step("bookmark", end)]))

    def steps(self, first: int, last: int) -> list[Step]:
        """Return what a watch delivers between two positions: each append whole, then a bookmark."""
        steps = []
        for revision in sorted({event.revision for event in self.history.events if first < event.revision <= last}):
            changes = tuple(event.change for event in self.history.events if event.revision == revision)
            steps.append(Step("changes", revision, changes))
        return [*steps, Step("bookmark", last)]

    def snapshot(self) -> None:
        """Add a watcher that begins with a snapshot."""
        self.history.goal = self._position
        assigned = tuple(assigned for target in (CHAMPION, CANARY) if (assigned := self.assigned(target)).version)
        self.history.streams.append(Stream("v", "m", steps=[Step("snapshot", self._position, aliases=assigned)]))

    def edit_steps(self, number: int, edit: Callable[[list[Step]], None]) -> None:
        """Edit the steps of a stream."""
        edit(self.history.streams[number].steps)

    def _do(self, kind: str, asked: dict[Target, tuple[int, int | None]], client: str, restored: int = 0) -> int:
        request_id, revision = f"r{len(self.history.operations)}", self._position + len(asked)
        for target, (version, _) in asked.items():
            before = self.assigned(target).version
            self._position += 1
            self.history.events.append(
                Event(
                    self._position,
                    revision,
                    f"e{self._position}",
                    *target,
                    before,
                    version,
                    client,
                    request_id,
                    restored,
                )
            )
        wanted = tuple(Intent(*target, version, expected) for target, (version, expected) in asked.items())
        returned = tuple(Assignment(*target, version, revision) for target, (version, _) in asked.items())
        self._tell(kind, wanted, client, OK, told=returned, position=revision, moved=True)
        return revision

    def _tell(self, kind: str, wanted: tuple[Intent, ...], client: str, outcome: str, **fields: object) -> None:
        request_id = "" if kind.startswith("resolve") else f"r{len(self.history.operations)}"
        self._time += 10
        returned = None if outcome == UNKNOWN else self._time + 5
        operation = Operation(client, kind, wanted, self._time, returned, outcome, request_id)
        self.history.operations.append(replace(operation, **fields))  # type: ignore[arg-type]


def full_scenario() -> Scenario:
    """Return a story with every kind of operation."""
    scenario = Scenario()
    first = scenario.move(1)
    second = scenario.move(2, expected=first, client="bob")
    scenario.move_rejected(expected=first)
    scenario.move_unchanged()
    scenario.release(champion=3, canary=1)
    scenario.resolve()
    scenario.remove()
    scenario.resolve()
    scenario.resolve(at=second)
    scenario.roll_back(second)
    scenario.repeat_last()
    scenario.watch(second, second + 2)
    scenario.snapshot()
    return scenario


def broken(scenario: Scenario) -> set[Rule]:
    """Return the rules that a story breaks."""
    return {violation.rule for violation in check(scenario.history)}


def altered(change: Change, **fields: object) -> Change:
    """Return a change with other fields."""
    return replace(change, **fields)  # type: ignore[arg-type]
