"""The registry against its own fold: whatever happens, its rows are what its log says, now and at every revision."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstore.decider import CommandHandler, Outcome
from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.tail import Tail
from rollforward import v1
from services import registry
from services.registry import model_stream, queries
from services.registry.decider import DECIDER, Command, Register, Rollback, State, evolve
from services.registry.projection import RegistryProjection, alias_changes, aliases, models, versions

T = TypeVar("T")

MODELS = st.sampled_from(["fraud", "fraud", "iris"])
ALIASES = st.sampled_from(["champion", "champion", "candidate"])
REVISIONS = st.one_of(st.none(), st.none(), st.integers(0, 12))
DIGESTS = [f"sha256:{digit * 64}" for digit in "123"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was done, and what it came to."""

    stream: str
    command: Command
    metadata: Metadata
    outcome: Outcome[State]


class Registry(RuleBasedStateMachine):
    """Random commands, repetitions, restarts and rebuilds over a log in memory and rows in SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._home = tempfile.TemporaryDirectory()
        self._log = MemoryStore("registry", registry.EVENTS)
        self._numbers = count(1)
        self._done: list[Asked] = []
        self._past: dict[int, dict[str, State]] = {0: {}}

    def run(self, job: Awaitable[T]) -> T:
        """Does a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    @initialize()
    def begin(self) -> None:
        """A model with three versions."""
        self.start()
        for digest in DIGESTS:
            self.register("fraud", digest)

    def start(self) -> None:
        """Opens the rows, the first time or again."""
        self._tail = Tail(self._log)
        self.run(self._tail.start())
        self._rows = Projector(self._tail, RegistryProjection(), Database(self._home.name))
        self.run(self._rows.start())
        self._commands = CommandHandler(self._log, DECIDER, self._rows)

    def teardown(self) -> None:
        """Stops everything."""
        self.run(self._rows.stop())
        self.run(self._tail.stop())
        self._loop.close()
        self._home.cleanup()

    # What may happen.

    @rule(model=MODELS)
    def create(self, model: str) -> None:
        """A model is created."""
        self._do(model, v1.CreateModelRequest(name=model, tags={"b": "1", "a": "2"}))

    @rule(model=MODELS, digest=st.sampled_from(DIGESTS))
    def register(self, model: str, digest: str) -> None:
        """A version is registered."""
        self._do(model, Register(v1.RegisterVersionRequest(model=model), digest))

    @rule(model=MODELS, alias=ALIASES, version=st.integers(1, 4), expected=REVISIONS)
    def move(self, model: str, alias: str, version: int, expected: int | None) -> None:
        """An alias is moved."""
        request = v1.MoveAliasRequest(model=model, alias=alias, version=version, expected_revision=expected)
        self._do(model, request)

    @rule(model=MODELS, alias=ALIASES, expected=REVISIONS)
    def remove(self, model: str, alias: str, expected: int | None) -> None:
        """An alias is removed."""
        self._do(model, v1.RemoveAliasRequest(model=model, alias=alias, expected_revision=expected))

    @rule(model=MODELS, alias=ALIASES, back=st.one_of(st.none(), st.integers(0, 10)))
    def roll_back(self, model: str, alias: str, back: int | None) -> None:
        """An alias is rolled back, to its previous holder or by so many positions of the log."""
        past = None
        if back is not None:
            position = max(0, self._head() - back)
            past = self.run(self._commands.state(model_stream(model), until=position))[0].alias(alias)
            assert past == self._past[position].get(model, State()).alias(alias)
        self._do(model, Rollback(v1.RollbackAliasRequest(model=model, alias=alias), past))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An earlier request comes again: nothing happens, and it is answered as it was."""
        if not self._done:
            return
        asked = data.draw(st.sampled_from(self._done))
        head = self._head()
        again = self.run(self._commands.handle(asked.stream, asked.command, asked.metadata))
        assert self._head() == head
        assert again.position == asked.outcome.position
        assert [event.id for event in again.events] == [event.id for event in asked.outcome.events]

    @rule(data=st.data(), model=MODELS)
    def reuse(self, data: st.DataObject, model: str) -> None:
        """An earlier request id comes with another command: it is refused."""
        if not self._done:
            return
        asked = data.draw(st.sampled_from(self._done))
        metadata = Metadata(asked.metadata.actor, request_id=asked.metadata.request_id, request_digest="other")
        head = self._head()
        assert self._refusal(model, v1.CreateModelRequest(name=model), metadata) == "REQUEST_ID_REUSED"
        assert self._head() == head

    @rule()
    def restart(self) -> None:
        """The process ends and starts again, with nothing held in memory."""
        self.run(self._rows.stop())
        self.run(self._tail.stop())
        self.start()

    @rule()
    def rebuild(self) -> None:
        """The rows are rebuilt, and are equal."""

        async def work() -> Sequence[Any]:
            return [step async for step in self._rows.rebuild()]

        last = self.run(work())[-1]
        assert last.done
        assert last.live_digest == last.rebuilt_digest != ""

    def _do(self, model: str, command: Command) -> None:
        request_id = str(next(self._numbers))
        metadata = Metadata("Zoë", request_id=request_id, request_digest=request_id)
        self._refusal(model, command, metadata)

    def _refusal(self, model: str, command: Command, metadata: Metadata) -> str:
        stream, head = model_stream(model), self._head()
        try:
            outcome = self.run(self._commands.handle(stream, command, metadata))
        except (Rejected, Conflict) as refusal:
            assert self._head() == head
            return refusal.reason
        if outcome.events:
            self._done.append(Asked(stream, command, metadata, outcome))
        for event in self._events()[head:]:
            before = self._past[event.position - 1]
            self._past[event.position] = before | {model: evolve(before.get(model, State()), event)}
        return ""

    # What always holds.

    @invariant()
    def rows_are_what_the_log_says(self) -> None:
        """Models, versions, aliases and history are the fold of the log."""
        head = self._head()
        self.run(self._rows.wait_for(head))
        now = self._past[head]
        assert self._ask(lambda rows: set(rows.scalars(sa.select(models.c.name)))) == set(now)
        assert self._ask(_versions) == {
            (model, number): digest for model, state in now.items() for number, digest in state.digests.items()
        }
        assert self._ask(_held) == {
            (model, alias): (one.version, one.revision)
            for model, state in now.items()
            for alias, one in state.aliases.items()
        }
        changes = [event for event in self._events() if isinstance(event.data, v1.AliasMoved | v1.AliasRemoved)]
        recorded = self._ask(lambda rows: list(rows.scalars(sa.select(alias_changes.c.revision).order_by("revision"))))
        assert recorded == [event.position for event in changes]

    @invariant()
    def the_past_is_what_the_log_said(self) -> None:
        """At every position, every alias is what the fold up to there says."""
        asked = [(model, alias) for model in ("fraud", "iris") for alias in ("champion", "candidate")]

        def answers(rows: sa.Connection) -> dict[tuple[int, str, str], tuple[int, int, str]]:
            found = {
                (at, model, alias): queries.assignment(rows, model, alias, at)
                for at in self._past
                for model, alias in asked
            }
            return {key: (one.version, one.revision, one.digest) for key, one in found.items()}

        expected = {}
        for at, states in self._past.items():
            for model, alias in asked:
                state = states.get(model, State())
                one = state.alias(alias)
                digest = state.digests[one.version] if one.version else ""
                expected[at, model, alias] = (one.version, one.revision, digest)
        assert self._ask(answers) == expected

    def _ask(self, question: Any) -> Any:
        return self.run(self._rows.query(question))

    def _head(self) -> int:
        return self.run(self._log.head())

    def _events(self) -> Sequence[RecordedEvent]:
        return self._log._events


def _versions(rows: sa.Connection) -> dict[tuple[str, int], str]:
    return {(row.model, row.version): row.digest for row in rows.execute(sa.select(versions))}


def _held(rows: sa.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    return {(row.model, row.alias): (row.version, row.revision) for row in rows.execute(sa.select(aliases))}


async def _awaited(job: Awaitable[T]) -> T:
    return await job


Registry.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRegistry = Registry.TestCase
