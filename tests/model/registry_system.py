"""The registry without a network: its log in memory, its rows in a database, its commands and invariants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import sqlalchemy as sa

from eventstore.commands.handler import CommandHandler
from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import registry, tracking
from services.registry import POLICIES_STREAM
from services.registry.commands import Commands
from services.registry.deciders import policies
from services.registry.deciders.models import DECIDER
from services.registry.deciders.policies import POLICIES
from services.registry.deciders.state import State, evolve
from services.registry.gates.evaluator import GateEvaluator
from services.registry.live_view import LiveView
from services.registry.projection.apply import RegistryProjection
from services.registry.projection.runs import RunsProjection
from services.registry.queries import aliases
from services.registry.queries import models as queries
from services.registry.queries.policies import policies as current_policies
from services.registry.rollback import Rollbacks
from tests.model import registry_facts as payloads
from tests.model.registry_facts import ALIASES, States

T = TypeVar("T")
Job = Callable[[Metadata], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that wrote events."""

    job: Job
    metadata: Metadata


class System:
    """A registry over an empty database, with the fold of its log at every position."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._loop = asyncio.new_event_loop()
        self._log = MemoryStore("registry", registry.EVENTS)
        self.runs_log = MemoryStore("tracking", tracking.EVENTS)
        self._numbers = count(1)
        self.done: list[Asked] = []
        self._past: list[States] = [{}]
        self._checked = -1

    def run(self, job: Awaitable[T]) -> T:
        """Run a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    def start(self) -> None:
        """Start for the first time."""
        self.run(self._start())

    async def _start(self) -> None:
        self._tail, runs_tail = Tail(self._log), Tail(self.runs_log)
        await self._tail.start()
        await runs_tail.start()
        database = Database(self._location)
        self._rows = Projector(self._tail, RegistryProjection(), database)
        runs = Projector(runs_tail, RunsProjection(), database)
        await self._rows.start()
        await runs.start()
        self.live = LiveView(self._rows, self._tail)
        await self.live.start()
        self.commands = Commands(CommandHandler(self._log, DECIDER, self._rows), GateEvaluator(runs), self.live)
        self.policies = CommandHandler(self._log, POLICIES, self._rows)
        self.rollbacks = Rollbacks(self.commands, self._rows, self.live)
        self._parts: list[Any] = [self.live, self._rows, runs, self._tail, runs_tail]

    async def _stop(self) -> None:
        for part in self._parts:
            await part.stop()

    def restart(self) -> None:
        """Stop and start again without caches."""
        self.run(self._stop())
        self.run(self._start())
        self._checked = -1

    def close(self) -> None:
        """Stop for good."""
        self.run(self._stop())
        self._loop.close()

    def rebuild(self) -> None:
        """Build the rows again, which must be equal."""

        async def work() -> Sequence[Any]:
            return [step async for step in self._rows.rebuild()]

        self.run(self._rows.wait_for(self.head))
        last = self.run(work())[-1]
        assert last.done
        assert last.position == self.head
        assert last.live_digest == last.rebuilt_digest != ""
        self._checked = -1

    def outcome(self, asked: Asked) -> str:
        """Run a command; return the reason of its rejection, if any."""
        try:
            self.run(asked.job(asked.metadata))
        except (Rejected, Conflict) as refusal:
            return refusal.reason
        return ""

    def do(self, job: Job) -> str:
        """Run a new command as `outcome` does, and fold its events."""
        head, request_id = self.head, str(next(self._numbers))
        asked = Asked(job, Metadata("Zoë", "because", request_id, request_id))
        reason = self.outcome(asked)
        new = self.events[head:]
        assert not new or reason in {"", "GATE_FAILED"}
        if new:
            self.done.append(asked)
        for event in new:
            self._past.append(self._folded(event))
            if isinstance(event.data, v1.ModelRenamed):
                self._checked = -1
        assert len({event.append_end for event in new}) <= 1
        self.run(self.live.wait_for(self.head))
        return reason

    def _folded(self, event: RecordedEvent) -> States:
        before = self._past[-1]
        if event.stream == POLICIES_STREAM:
            return before
        return {**before, event.stream: evolve(before.get(event.stream, State()), event)}

    # Invariants.

    def check(self) -> None:
        """Check that rows and memory equal the log, now and at every past position.

        Each position is checked when it is new, and all of them again after a change that may affect the past.
        """
        self.run(self._rows.wait_for(self.head))
        self.run(self._rows.query(self._check_rows))
        self._check_memory()
        self._checked = self.head

    def _check_rows(self, connection: sa.Connection) -> None:
        self._check_now(connection)
        self._check_past(connection)
        self._check_history(connection)

    def _check_now(self, connection: sa.Connection) -> None:
        """Check that models, labels, names, versions, aliases, schedules and policies are the fold of the log."""
        now = self.now
        models = queries.list_models(connection, v1.ListModelsRequest(show_deleted=True)).models
        assert payloads.models_in(models) == payloads.models(now)
        former = {model.name: set(model.former_names) for model in models}
        assert former == payloads.former_names(self.events, now)
        listed = queries.list_versions(connection, v1.ListVersionsRequest(show_deleted=True, page_size=1000)).versions
        assert payloads.versions_in(listed) == payloads.versions(now)
        waiting = aliases.list_schedules(connection, v1.ListSchedulesRequest()).schedules
        assert payloads.schedules_in(waiting) == payloads.schedules(now)
        said = self._logged_policies()
        assert {one.name: one for one in current_policies(connection).policies} == dict(said.policies.items())

    def _check_memory(self) -> None:
        for state in self.now.values():
            for alias, one in state.aliases.items():
                found = self.live.assignment(state.name, alias)
                digest = state.digest(one.version)
                assert (found.version, found.revision, found.digest) == (one.version, one.revision, digest)
        said = self._logged_policies()
        assert dict(self.live.policies.policies.items()) == dict(said.policies.items())
        assert self.live.policies.revision == said.revision

    def _logged_policies(self) -> policies.State:
        """Return the policies in the log."""
        said = policies.State()
        for event in self.events:
            if event.stream == POLICIES_STREAM:
                said = policies.evolve(said, event)
        return said

    def _check_past(self, connection: sa.Connection) -> None:
        """Check that at a position, every alias is the fold up to the last append complete by then."""
        now = self.now
        for at in range(self._checked + 1, self.head + 1):
            past = self._past[self._whole(at)]
            if at:
                shown = aliases.resolve_aliases(connection, v1.ResolveAliasesRequest(), at).aliases
                assert payloads.assigned_in(shown) == payloads.assigned(past, now)
            for stream, state in now.items():
                for alias in ALIASES if state.name else ():
                    one, said = aliases.assignment(connection, state.name, alias, at), past.get(stream, State())
                    assigned = said.alias(alias)
                    shown_one = (one.version, one.revision, one.digest)
                    assert shown_one == (assigned.version, assigned.revision, said.digest(assigned.version))

    def _check_history(self, connection: sa.Connection) -> None:
        """Check that every change is listed, and every interval in which a version had an alias."""
        changes = payloads.alias_changes(self.events)
        listed = aliases.list_history(connection, v1.ListAliasHistoryRequest(page_size=1000)).changes
        assert [(one.position, one.revision, one.from_version, one.to_version) for one in listed] == [
            (one.position, one.revision, one.from_version, one.to_version) for one in reversed(changes)
        ]
        for origin, alias in {change[:2] for change in changes}:
            name = self.now[registry.model_stream(origin)].name
            request = v1.ListAliasIntervalsRequest(model=name, alias=alias, page_size=1000)
            found = aliases.list_intervals(connection, request, 2**62).intervals
            assert [(one.began.position, one.ended.position) for one in found] == payloads.intervals(
                [change for change in changes if change[:2] == (origin, alias)]
            )

    def _whole(self, at: int) -> int:
        """Return the last position up to which every append is complete at `at`."""
        return next((event.position for event in reversed(self.events[:at]) if event.append_end <= at), 0)

    @property
    def now(self) -> States:
        """Return the fold of the log."""
        return self._past[-1]

    @property
    def events(self) -> Sequence[RecordedEvent]:
        """Return all events."""
        return self._log._events

    @property
    def head(self) -> int:
        """Return the position of the last event."""
        return len(self.events)

    def state_of(self, model: str) -> State:
        """Return the state of the model with this name now; an empty one without it."""
        return next((state for state in self.now.values() if state.name == model), State())


async def _awaited(job: Awaitable[T]) -> T:
    return await job
