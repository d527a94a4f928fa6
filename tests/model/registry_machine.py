"""The registry with its rows and its memory, to which anything may happen, and what must hold whatever did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventstore.decider import CommandHandler
from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.tail import Tail
from rollforward import v1
from services import registry, tracking
from services.registry import POLICIES_STREAM, alias_queries, policies, queries
from services.registry.commands import Commands
from services.registry.decider import DECIDER
from services.registry.judging import Judge
from services.registry.live import Live
from services.registry.policies import POLICIES
from services.registry.projection import RegistryProjection
from services.registry.rollback import Rollbacks
from services.registry.runs import RunsProjection
from services.registry.state import State, evolve
from tests.model import registry_facts as facts
from tests.model.registry_facts import ALIASES, States

T = TypeVar("T")
Job = Callable[[Metadata], Awaitable[object]]

FIRST, SECOND = "the first model that is not deleted", "the second"
MODELS = st.sampled_from([FIRST, FIRST, FIRST, FIRST, SECOND, SECOND, "fraud", "new"])
ALIAS = st.sampled_from([ALIASES[0], *ALIASES])
NUMBERS = st.sampled_from([1, 2, 3, 1, 2, 3, 4, 5])  # 5 for a version that is not there
HELD, STALE = "the revision that it has", "one that it had"
EXPECTED = st.sampled_from([None, None, None, HELD, HELD, STALE])
DIGESTS = [f"sha256:{digit * 64}" for digit in "123"]
TAGS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=2)
# Version 0 stands for a removal.
MOVES = st.lists(st.tuples(ALIAS, NUMBERS | st.just(0), EXPECTED, st.booleans()), min_size=1, max_size=4)
# Patterns, whether to skip what is gone, and how many positions to go back, None for the previous holders.
ROLLBACKS = st.lists(
    st.tuples(
        st.sampled_from(["*", "*", "fraud", "i*", FIRST]),
        st.sampled_from(["*", "*", "champion", "c*e"]),
        st.booleans(),
        st.none() | st.integers(1, 15),
    ),
    min_size=1,
    max_size=3,
)
TARGETS = st.lists(
    st.tuples(st.sampled_from([FIRST, FIRST, SECOND]), ALIAS, st.integers(1, 4)),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one[:2],
)
EVER = Timestamp(seconds=4_000_000_000)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that wrote events."""

    job: Job
    metadata: Metadata


class Registry(RuleBasedStateMachine):
    """Random commands, repetitions, restarts and rebuilds over a log in memory and rows in a database that is empty."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location
        self._loop = asyncio.new_event_loop()
        self._log = MemoryStore("registry", registry.EVENTS)
        self._runs_log = MemoryStore("tracking", tracking.EVENTS)
        self._numbers = count(1)
        self._done: list[Asked] = []
        self._past: list[States] = [{}]
        self._checked = -1

    def run(self, job: Awaitable[T]) -> T:
        """Does a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    @initialize()
    def begin(self) -> None:
        """Two models whose aliases have moved already."""
        self.run(self._start())
        for model, digests in {"fraud": DIGESTS, "iris": DIGESTS[:2]}.items():
            for digest in digests:
                self._register(model, digest)
        for version in (1, 2, 3):
            self._move("fraud", "champion", version)
        self.move_together([("fraud", "candidate", 1), ("iris", "champion", 1)])
        self.move_together([("fraud", "candidate", 2), ("iris", "champion", 2)])

    async def _start(self) -> None:
        """Opens rows and memory, the first time or again."""
        self._tail, runs_tail = Tail(self._log), Tail(self._runs_log)
        await self._tail.start()
        await runs_tail.start()
        database = Database(self._location)
        self._rows = Projector(self._tail, RegistryProjection(), database)
        runs = Projector(runs_tail, RunsProjection(), database)
        await self._rows.start()
        await runs.start()
        self._live = Live(self._rows, self._tail)
        await self._live.start()
        self._commands = Commands(CommandHandler(self._log, DECIDER, self._rows), Judge(runs), self._live)
        self._policies = CommandHandler(self._log, POLICIES, self._rows)
        self._rollbacks = Rollbacks(self._commands, self._rows, self._live)
        self._parts: list[Any] = [self._live, self._rows, runs, self._tail, runs_tail]

    async def _stop(self) -> None:
        for part in self._parts:
            await part.stop()

    def teardown(self) -> None:
        """Looks at everything once more, and stops it."""
        try:
            self._rebuild()
            self.rows_are_what_the_log_says()
            self.memory_is_what_the_log_says()
        finally:
            self.run(self._stop())
            self._loop.close()

    # What may happen.

    @rule(model=MODELS, name=st.sampled_from(["fraud", "iris", "new", "other"]))
    def rename(self, model: str, name: str) -> None:
        """A model is renamed."""
        request = v1.RenameModelRequest(model=self._named(model), new_name=name)
        self._do(lambda metadata: self._commands.rename(request, metadata))
        self._checked = -1

    @rule(
        model=MODELS,
        version=st.integers(0, 4),
        text=st.sampled_from(["", "x", "y"]),
        tags=TAGS,
        status=st.sampled_from([0, 0, 1, 1, 2, 3]),
    )
    def label(
        self, model: str, version: int, text: str, tags: dict[str, str], status: v1.VersionStatus.ValueType
    ) -> None:
        """A model or a version is described and tagged, and a version gets a status."""
        model, version = self._named(model), self._version(model, version)
        self._on(model, v1.SetDescriptionRequest(model=model, version=version, description=text))
        gone = [key for key in "abc" if key not in tags]
        self._on(model, v1.ChangeTagsRequest(model=model, version=version, set=tags, remove=gone))
        if version and status:
            self._on(model, v1.SetVersionStatusRequest(model=model, version=version, status=status))

    @rule(model=MODELS, version=st.integers(0, 4), restore=st.booleans())
    def delete(self, model: str, version: int, restore: bool) -> None:
        """A model or a version is deleted or restored."""
        model, version = self._named(model), self._version(model, version)
        kinds = (v1.DeleteVersionRequest, v1.RestoreVersionRequest)
        whole = (v1.DeleteModelRequest, v1.RestoreModelRequest)
        request = kinds[restore](model=model, version=version) if version else whole[restore](model=model)
        self._on(model, request)

    @rule(
        model=MODELS,
        expression=st.sampled_from(["", "true", "true", "false"]),
        name=st.sampled_from("pq"),
        gate=st.sampled_from(["", "candidate.version > 1"]),
        remove=st.booleans(),
    )
    def declare(self, model: str, expression: str, name: str, gate: str, remove: bool) -> None:
        """A model's registration gate is set or lifted, and a policy is set or removed."""
        model = self._named(model)
        self._on(model, v1.SetRegistrationGateRequest(model=model, expression=expression))
        policy = v1.Policy(name=name, models="fraud*", aliases="champion", reason_required=True, gate=gate)
        request = v1.RemovePolicyRequest(name=name) if remove else v1.SetPolicyRequest(policy=policy)
        self._do(lambda metadata: self._policies.handle(POLICIES_STREAM, request, metadata))

    @rule(model=MODELS, digest=st.sampled_from(DIGESTS), version=NUMBERS, other=MODELS, copy=st.booleans())
    def register(self, model: str, digest: str, version: int, other: str, copy: bool) -> None:
        """A model is created, and a version is registered or copied to another model."""
        model, other, version = self._named(model), self._named(other), self._version(self._named(model), version)
        self._on(model, v1.CreateModelRequest(name=model, tags={"b": "1", "a": "2"}))
        request = v1.CopyVersionRequest(model=model, version=version, to_model=other)
        if copy:
            self._do(lambda metadata: self._commands.copy(request, metadata))
        else:
            self._register(other, digest)

    def _register(self, model: str, digest: str) -> None:
        request = v1.RegisterVersionRequest(model=model, tags={"a": "1"})
        self._do(lambda metadata: self._commands.register(request, digest, metadata))

    @rule(model=MODELS, moves=MOVES)
    def move(self, model: str, moves: Sequence[tuple[str, int, str | None, bool]]) -> None:
        """Aliases are moved or removed, one after the other."""
        model = self._named(model)
        for alias, version, expected, expires in moves:
            revision = self._revision(model, alias, expected)
            if version:
                self._move(model, alias, self._version(model, version), revision, EVER if expires else None)
            else:
                request = v1.RemoveAliasRequest(model=model, alias=alias, expected_revision=revision, reason="because")
                self._do(lambda metadata, request=request: self._commands.remove(request, metadata))  # type: ignore[misc]

    def _move(
        self, model: str, alias: str, version: int, expected: int | None = None, expires_at: Timestamp | None = None
    ) -> None:
        request = v1.MoveAliasRequest(
            model=model, alias=alias, version=version, expected_revision=expected, expires_at=expires_at, reason="r"
        )
        self._do(lambda metadata: self._commands.move(request, metadata))

    @rule(wanted=TARGETS)
    def move_together(self, wanted: Sequence[tuple[str, str, int]]) -> None:
        """A release set is moved, all at one revision."""
        named = {(self._named(model), alias): version for model, alias, version in wanted}
        targets = [
            v1.AliasTarget(model=model, alias=alias, version=self._version(model, version))
            for (model, alias), version in named.items()
        ]
        request = v1.MoveAliasesRequest(targets=targets, reason="because")
        self._do(lambda metadata: self._commands.move_together(request, metadata))

    @rule(model=MODELS, alias=ALIAS, version=NUMBERS, expected=EXPECTED)
    def schedule(self, model: str, alias: str, version: int, expected: str | None) -> None:
        """A move is scheduled."""
        model, version = self._named(model), self._version(model, version)
        revision = self._revision(model, alias, expected)
        request = v1.ScheduleMoveRequest(
            model=model, alias=alias, version=version, at=EVER, expected_revision=revision, reason="because"
        )
        schedule_id = f"{next(self._numbers):032x}"
        self._do(lambda metadata: self._commands.schedule(request, schedule_id, metadata))

    @precondition(lambda self: any(state.schedules for state in self._now().values()))
    @rule(data=st.data(), fire=st.booleans())
    def end_schedule(self, data: st.DataObject, fire: bool) -> None:
        """The time of a scheduled move comes, or it is called off."""
        waiting = [(stream, key) for stream, state in self._now().items() for key in state.schedules]
        stream, schedule_id = data.draw(st.sampled_from(sorted(waiting)))
        name = self._now()[stream].name
        if fire:
            self._do(lambda metadata: self._commands.fire(stream, schedule_id, metadata))
            assert schedule_id not in self._now()[stream].schedules
        else:
            self._on(name, v1.CancelScheduleRequest(model=name, schedule_id=schedule_id))

    @precondition(lambda self: self._expiring())
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """The time comes at which an assignment ends."""
        stream, alias, revision = data.draw(st.sampled_from(self._expiring()))
        self._do(lambda metadata: self._commands.expire(stream, alias, revision, metadata))
        assert not self._now()[stream].alias(alias).version

    def _expiring(self) -> list[tuple[str, str, int]]:
        return sorted(
            (stream, alias, one.revision)
            for stream, state in self._now().items()
            for alias, one in state.aliases.items()
            if one.expires_at
        )

    @rule(wanted=ROLLBACKS)
    def roll_back(self, wanted: Sequence[tuple[str, str, bool, int | None]]) -> None:
        """Rollbacks, one after the other."""
        for models, aliases, skip, back in wanted:
            self._roll_back(models, aliases, skip, back if back is None else max(0, self._head() - back))

    def _roll_back(self, models: str, aliases: str, skip: bool, to: int | None) -> None:
        """Some aliases go back to where they were at a position, or to their previous holders, after a dry run."""
        request = v1.RollbackRequest(models=self._named(models), aliases=aliases, skip_missing=skip, reason="r")
        wanted = facts.restored(self._events(), self._now(), request, to)
        dry = v1.RollbackRequest(dry_run=True)
        dry.MergeFrom(request)
        head = self._head()
        try:
            seen = self.run(self._rollbacks.do(dry, to, Metadata("Zoë")))
        except (Rejected, Conflict):
            seen = None
        assert self._head() == head
        if seen:
            request.expected_position = seen.computed_at
        answers: list[v1.RollbackResponse] = []

        async def job(metadata: Metadata) -> None:
            answers.append(await self._rollbacks.do(request, to, metadata))

        reason = self._do(job)
        if seen is None:
            assert not answers
            assert wanted or reason in {"NOTHING_TO_RESTORE", "ALIAS_NOT_FOUND", "MODEL_RENAMED"}
            return
        changes = {
            facts.Restored(one.model, one.alias, one.from_version, one.to_version, one.restored_revision)
            for one in seen.changes
        }
        assert changes == wanted
        if not answers:
            assert reason == "GATE_FAILED"
            return
        assert list(answers[0].changes) == list(seen.changes)
        for change in seen.changes:
            if not change.skipped:
                alias = self._live.assignment(change.model, change.alias)
                assert (alias.version, alias.revision) == (change.to_version, answers[0].revision)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An earlier request comes again: nothing happens, or it is refused as it was. With another command it is."""
        asked = data.draw(st.sampled_from(self._done))
        head = self._head()
        # What it names may be called otherwise, or be gone, by now.
        assert self._outcome(asked) not in {"REQUEST_ID_REUSED", "STREAM_BUSY", "WRONG_REVISION"}
        assert self._head() == head
        metadata = replace(asked.metadata, request_digest="other")
        request = v1.CreateModelRequest(name="other")
        other = Asked(lambda metadata: self._commands.handle("other", request, metadata), metadata)
        assert self._outcome(other) == "REQUEST_ID_REUSED"
        assert self._head() == head

    @rule(rebuild=st.booleans())
    def restart(self, rebuild: bool) -> None:
        """The process ends and starts again, with nothing held in memory; the rows are rebuilt."""
        self.run(self._stop())
        self.run(self._start())
        self._checked = -1
        if rebuild:
            self._rebuild()

    def _rebuild(self) -> None:
        async def work() -> Sequence[Any]:
            return [step async for step in self._rows.rebuild()]

        self.run(self._rows.wait_for(self._head()))
        last = self.run(work())[-1]
        assert last.done
        assert last.position == self._head()
        assert last.live_digest == last.rebuilt_digest != ""
        self._checked = -1

    def _named(self, model: str) -> str:
        names = [state.name for state in self._now().values() if state.name and not state.deleted]
        if model not in (FIRST, SECOND):
            return model
        return (names or ["fraud"])[model == SECOND and len(names) > 1]

    def _version(self, model: str, number: int) -> int:
        """One of the model's versions, if it has any, or the one after the last."""
        known = next((len(state.versions) for state in self._now().values() if state.name == model), 0)
        return number if not 1 <= number <= 4 or not known else (number - 1) % known + 1 if number < 5 else known + 1

    def _revision(self, model: str, alias: str, expected: str | None) -> int | None:
        if expected is None:
            return None
        state = next((state for state in self._now().values() if state.name == model), State())
        return state.alias(alias).revision if expected == HELD else max(0, state.alias(alias).revision - 1)

    def _outcome(self, asked: Asked) -> str:
        try:
            self.run(asked.job(asked.metadata))
        except (Rejected, Conflict) as refusal:
            return refusal.reason
        return ""

    def _on(self, model: str, command: object) -> None:
        self._do(lambda metadata: self._commands.handle(model, command, metadata))

    def _do(self, job: Job) -> str:
        """Has a command done; the reason why it was not, if so."""
        head, request_id = self._head(), str(next(self._numbers))
        asked = Asked(job, Metadata("Zoë", "because", request_id, request_id))
        reason = self._outcome(asked)
        new = self._events()[head:]
        assert not new or reason in {"", "GATE_FAILED"}
        if new:
            self._done.append(asked)
        for event in new:
            self._past.append(self._folded(event))
        assert len({event.append_end for event in new}) <= 1
        self.run(self._live.wait_for(self._head()))
        return reason

    def _folded(self, event: RecordedEvent) -> States:
        before = self._past[-1]
        if event.stream == POLICIES_STREAM:
            return before
        return {**before, event.stream: evolve(before.get(event.stream, State()), event)}

    # What always holds.

    @invariant()
    def rows_are_what_the_log_says(self) -> None:
        """Models, versions, aliases and schedules are the fold of the log, now and at every position in the past.

        The past is looked at when it is new, and again when something may have touched it.
        """
        self.run(self._rows.wait_for(self._head()))
        self.run(self._rows.query(self._check_now))
        self.run(self._rows.query(self._check_past))
        self.run(self._rows.query(self._check_history))
        self._checked = self._head()

    def _check_now(self, rows: sa.Connection) -> None:
        now = self._now()
        models = queries.list_models(rows, v1.ListModelsRequest(show_deleted=True)).models
        assert facts.models_in(models) == facts.models(now)
        former = {model.name: set(model.former_names) for model in models}
        assert former == facts.former_names(self._events(), now)
        listed = queries.list_versions(rows, v1.ListVersionsRequest(show_deleted=True, page_size=1000)).versions
        assert facts.versions_in(listed) == facts.versions(now)
        waiting = alias_queries.list_schedules(rows, v1.ListSchedulesRequest()).schedules
        assert facts.schedules_in(waiting) == facts.schedules(now)
        said = self._said()
        assert {one.name: one for one in alias_queries.policies(rows).policies} == dict(said.policies.items())

    @invariant()
    def memory_is_what_the_log_says(self) -> None:
        """So are the aliases and the policies that questions about now are answered from."""
        for state in self._now().values():
            for alias, one in state.aliases.items():
                found = self._live.assignment(state.name, alias)
                digest = state.digest(one.version)
                assert (found.version, found.revision, found.digest) == (one.version, one.revision, digest)
        said = self._said()
        assert dict(self._live.policies.policies.items()) == dict(said.policies.items())
        assert self._live.policies.revision == said.revision

    def _said(self) -> policies.State:
        """The policies, by the log."""
        said = policies.State()
        for event in self._events():
            if event.stream == POLICIES_STREAM:
                said = policies.evolve(said, event)
        return said

    def _check_past(self, rows: sa.Connection) -> None:
        """At a position, every alias is what the fold said after the last append that was whole by then."""
        now = self._now()
        for at in range(self._checked + 1, self._head() + 1):
            past = self._past[self._whole(at)]
            if at:
                shown = alias_queries.resolve_aliases(rows, v1.ResolveAliasesRequest(), at).aliases
                assert facts.held_in(shown) == facts.held(past, now)
            for stream, state in now.items():
                for alias in ALIASES if state.name else ():
                    one, said = alias_queries.assignment(rows, state.name, alias, at), past.get(stream, State())
                    held = said.alias(alias)
                    shown_one = (one.version, one.revision, one.digest)
                    assert shown_one == (held.version, held.revision, said.digest(held.version))

    def _check_history(self, rows: sa.Connection) -> None:
        """Every change is listed, and every stretch of time in which a version held an alias."""
        changes = facts.alias_changes(self._events())
        listed = alias_queries.list_history(rows, v1.ListAliasHistoryRequest(page_size=1000)).changes
        assert [(one.position, one.revision, one.from_version, one.to_version) for one in listed] == [
            (one.position, one.revision, one.from_version, one.to_version) for one in reversed(changes)
        ]
        for origin, alias in {change[:2] for change in changes}:
            name = self._now()[registry.model_stream(origin)].name
            request = v1.ListAliasIntervalsRequest(model=name, alias=alias, page_size=1000)
            found = alias_queries.list_intervals(rows, request, 2**62).intervals
            assert [(one.began.position, one.ended.position) for one in found] == facts.intervals(
                [change for change in changes if change[:2] == (origin, alias)]
            )

    def _whole(self, at: int) -> int:
        """The last position up to which every append is whole at `at`."""
        return next((event.position for event in reversed(self._events()[:at]) if event.append_end <= at), 0)

    def _now(self) -> States:
        return self._past[-1]

    def _head(self) -> int:
        return len(self._events())

    def _events(self) -> Sequence[RecordedEvent]:
        return self._log._events


async def _awaited(job: Awaitable[T]) -> T:
    return await job
