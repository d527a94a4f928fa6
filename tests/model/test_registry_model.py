"""The registry against its own fold: whatever happens, its rows and its memory are what its log says, now and then."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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

T = TypeVar("T")
Job = Callable[[Metadata], Awaitable[object]]
States = Mapping[str, State]

FIRST = "the first model, whatever it is called"
NAMES = st.sampled_from([FIRST, FIRST, FIRST, FIRST, "fraud", "iris", "new"])
ALIASES = st.sampled_from(["champion", "champion", "candidate"])
NUMBERS = st.integers(1, 4)
REVISIONS = st.one_of(st.none(), st.none(), st.integers(0, 30))
DIGESTS = [f"sha256:{digit * 64}" for digit in "123"]
TAGS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=2)
TARGETS = st.lists(st.tuples(NAMES, ALIASES, NUMBERS), min_size=1, max_size=3, unique_by=lambda one: one[:2])
EVER = Timestamp(seconds=4_000_000_000)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that wrote events, and their ids."""

    job: Job
    metadata: Metadata
    events: Sequence[str]


class Registry(RuleBasedStateMachine):
    """Random commands, repetitions, restarts and rebuilds over a log in memory and rows in SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._home = tempfile.TemporaryDirectory()
        self._log = MemoryStore("registry", registry.EVENTS)
        self._runs_log = MemoryStore("tracking", tracking.EVENTS)
        self._numbers = count(1)
        self._done: list[Asked] = []
        self._past: dict[int, States] = {0: {}}

    def run(self, job: Awaitable[T]) -> T:
        """Does a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    @initialize()
    def begin(self) -> None:
        """A model with three versions."""
        self.run(self._start())
        for digest in DIGESTS:
            self.register("fraud", digest)

    async def _start(self) -> None:
        """Opens rows and memory, the first time or again."""
        self._tail, runs_tail = Tail(self._log), Tail(self._runs_log)
        await self._tail.start()
        await runs_tail.start()
        database = Database(self._home.name)
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
        """Stops everything."""
        self.run(self._stop())
        self._loop.close()
        self._home.cleanup()

    # What may happen.

    @rule(model=NAMES)
    def create(self, model: str) -> None:
        """A model is created."""
        model = self._named(model)
        self._on(model, v1.CreateModelRequest(name=model, tags={"b": "1", "a": "2"}))

    @rule(model=NAMES, name=st.sampled_from(["fraud", "iris", "new", "other"]))
    def rename(self, model: str, name: str) -> None:
        """A model is renamed."""
        model = self._named(model)
        request = v1.RenameModelRequest(model=model, new_name=name)
        self._do(lambda metadata: self._commands.rename(request, metadata))

    @rule(model=NAMES, version=st.integers(0, 4), text=st.sampled_from(["", "x", "y"]), tags=TAGS)
    def label(self, model: str, version: int, text: str, tags: dict[str, str]) -> None:
        """A model or a version is described and tagged."""
        model = self._named(model)
        self._on(model, v1.SetDescriptionRequest(model=model, version=version, description=text))
        gone = [key for key in "abc" if key not in tags]
        self._on(model, v1.ChangeTagsRequest(model=model, version=version, set=tags, remove=gone))

    @rule(model=NAMES, version=NUMBERS, status=st.sampled_from([1, 1, 2, 3]))
    def set_status(self, model: str, version: int, status: v1.VersionStatus.ValueType) -> None:
        """A version gets a status."""
        model = self._named(model)
        self._on(model, v1.SetVersionStatusRequest(model=model, version=version, status=status))

    @rule(model=NAMES, version=st.integers(0, 4), restore=st.booleans())
    def delete(self, model: str, version: int, restore: bool) -> None:
        """A model or a version is deleted or restored."""
        model = self._named(model)
        kinds = (v1.DeleteVersionRequest, v1.RestoreVersionRequest)
        whole = (v1.DeleteModelRequest, v1.RestoreModelRequest)
        request = kinds[restore](model=model, version=version) if version else whole[restore](model=model)
        self._on(model, request)

    @rule(model=NAMES, expression=st.sampled_from(["", "", "true", "false"]))
    def gate(self, model: str, expression: str) -> None:
        """A model's registration gate is set or lifted."""
        model = self._named(model)
        self._on(model, v1.SetRegistrationGateRequest(model=model, expression=expression))

    @rule(model=NAMES, digest=st.sampled_from(DIGESTS))
    def register(self, model: str, digest: str) -> None:
        """A version is registered."""
        model = self._named(model)
        request = v1.RegisterVersionRequest(model=model, tags={"a": "1"})
        self._do(lambda metadata: self._commands.register(request, digest, metadata))

    @rule(model=NAMES, version=NUMBERS, other=NAMES)
    def copy(self, model: str, version: int, other: str) -> None:
        """A version is copied to another model."""
        model = self._named(model)
        request = v1.CopyVersionRequest(model=model, version=version, to_model=other)
        self._do(lambda metadata: self._commands.copy(request, metadata))

    @rule(model=NAMES, alias=ALIASES, version=NUMBERS, expected=REVISIONS, expires=st.booleans())
    def move(self, model: str, alias: str, version: int, expected: int | None, expires: bool) -> None:
        """An alias is moved."""
        model = self._named(model)
        request = v1.MoveAliasRequest(
            model=model,
            alias=alias,
            version=version,
            expected_revision=expected,
            expires_at=EVER if expires else None,
            reason="because",
        )
        self._do(lambda metadata: self._commands.move(request, metadata))

    @rule(wanted=TARGETS)
    def move_together(self, wanted: Sequence[tuple[str, str, int]]) -> None:
        """A release set is moved, all at one revision."""
        named = {(self._named(model), alias): version for model, alias, version in wanted}
        targets = [v1.AliasTarget(model=key[0], alias=key[1], version=version) for key, version in named.items()]
        request = v1.MoveAliasesRequest(targets=targets, reason="because")
        self._do(lambda metadata: self._commands.move_together(request, metadata))

    @rule(model=NAMES, alias=ALIASES, expected=REVISIONS)
    def remove(self, model: str, alias: str, expected: int | None) -> None:
        """An alias is removed."""
        model = self._named(model)
        request = v1.RemoveAliasRequest(model=model, alias=alias, expected_revision=expected, reason="because")
        self._do(lambda metadata: self._commands.remove(request, metadata))

    @rule(model=NAMES, alias=ALIASES, version=NUMBERS, expected=REVISIONS)
    def schedule(self, model: str, alias: str, version: int, expected: int | None) -> None:
        """A move is scheduled."""
        model = self._named(model)
        request = v1.ScheduleMoveRequest(
            model=model, alias=alias, version=version, at=EVER, expected_revision=expected, reason="because"
        )
        schedule_id = f"{next(self._numbers):032x}"
        self._do(lambda metadata: self._commands.schedule(request, schedule_id, metadata))

    @rule(data=st.data(), fire=st.booleans())
    def end_schedule(self, data: st.DataObject, fire: bool) -> None:
        """The time of a scheduled move comes, or it is called off."""
        waiting = [(stream, key) for stream, state in self._now().items() for key in state.schedules]
        if not waiting:
            return
        stream, schedule_id = data.draw(st.sampled_from(sorted(waiting)))
        name = self._now()[stream].name
        if fire:
            self._do(lambda metadata: self._commands.fire(stream, schedule_id, metadata))
            assert schedule_id not in self._now()[stream].schedules
        else:
            self._on(name, v1.CancelScheduleRequest(model=name, schedule_id=schedule_id))

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """The time comes at which an assignment ends."""
        held = [
            (stream, alias, one.revision)
            for stream, state in self._now().items()
            for alias, one in state.aliases.items()
            if one.expires_at
        ]
        if held:
            stream, alias, revision = data.draw(st.sampled_from(sorted(held)))
            self._do(lambda metadata: self._commands.expire(stream, alias, revision, metadata))
            assert not self._now()[stream].alias(alias).version

    @rule(
        models=st.sampled_from(["*", "fraud", "i*"]), aliases=st.sampled_from(["*", "champion", "c*e"]), data=st.data()
    )
    def roll_back(self, models: str, aliases: str, data: st.DataObject) -> None:
        """A rollback of some aliases, to a position or to the previous holders, after a dry run."""
        to = data.draw(st.one_of(st.none(), st.integers(0, self._head())))
        request = v1.RollbackRequest(models=models, aliases=aliases, skip_missing=data.draw(st.booleans()), reason="r")
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

        self._do(job)
        if not answers or seen is None:
            assert not answers
            return
        assert list(answers[0].changes) == list(seen.changes)
        for change in seen.changes:
            if not change.skipped:
                alias = self._live.assignment(change.model, change.alias)
                assert (alias.version, alias.revision) == (change.to_version, answers[0].revision)

    @rule(name=st.sampled_from("pq"), gate=st.sampled_from(["", "candidate.version > 1"]), remove=st.booleans())
    def declare(self, name: str, gate: str, remove: bool) -> None:
        """A policy is set or removed."""
        policy = v1.Policy(name=name, models="fraud*", aliases="champion", reason_required=True, gate=gate)
        request = v1.RemovePolicyRequest(name=name) if remove else v1.SetPolicyRequest(policy=policy)
        self._do(lambda metadata: self._policies.handle(POLICIES_STREAM, request, metadata))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An earlier request comes again: nothing happens, or it is refused as it was."""
        if not self._done:
            return
        asked = data.draw(st.sampled_from(self._done))
        head = self._head()
        # What it names may be called otherwise, or be gone, by now.
        assert self._outcome(asked) not in {"REQUEST_ID_REUSED", "STREAM_BUSY", "WRONG_REVISION"}
        assert self._head() == head

    @rule(data=st.data(), model=NAMES)
    def reuse(self, data: st.DataObject, model: str) -> None:
        """An earlier request id comes with another command: it is refused."""
        if not self._done:
            return
        asked = data.draw(st.sampled_from(self._done))
        metadata = Metadata(asked.metadata.actor, request_id=asked.metadata.request_id, request_digest="other")
        head = self._head()
        request = v1.CreateModelRequest(name=model)
        refused = self._refusal(lambda metadata: self._commands.handle(model, request, metadata), metadata)
        assert refused == "REQUEST_ID_REUSED"
        assert self._head() == head

    @rule()
    def restart(self) -> None:
        """The process ends and starts again, with nothing held in memory."""
        self.run(self._stop())
        self.run(self._start())

    @rule()
    def rebuild(self) -> None:
        """The rows are rebuilt, and are equal."""

        async def work() -> Sequence[Any]:
            return [step async for step in self._rows.rebuild()]

        last = self.run(work())[-1]
        assert last.done
        assert last.live_digest == last.rebuilt_digest != ""

    def _named(self, model: str) -> str:
        names = [state.name for state in self._now().values() if state.name]
        return names[0] if model == FIRST and names else "fraud" if model == FIRST else model

    def _outcome(self, asked: Asked) -> str:
        try:
            self.run(asked.job(asked.metadata))
        except (Rejected, Conflict) as refusal:
            return refusal.reason
        return ""

    def _on(self, model: str, command: object) -> None:
        self._do(lambda metadata: self._commands.handle(model, command, metadata))

    def _do(self, job: Job) -> None:
        request_id = str(next(self._numbers))
        metadata = Metadata("Zoë", "because", request_id, request_id)
        self._refusal(job, metadata)

    def _refusal(self, job: Job, metadata: Metadata) -> str:
        head = self._head()
        reason = ""
        try:
            self.run(job(metadata))
        except (Rejected, Conflict) as refusal:
            reason = refusal.reason
            assert self._head() == head or reason == "GATE_FAILED"
        new = self._events()[head:]
        if new:
            self._done.append(Asked(job, metadata, [event.id for event in new]))
        for event in new:
            before = self._past[event.position - 1]
            folds = (
                {}
                if event.stream == POLICIES_STREAM
                else {event.stream: evolve(before.get(event.stream, State()), event)}
            )
            self._past[event.position] = {**before, **folds}
        assert len({event.append_end for event in new}) <= 1
        self.run(self._live.wait_for(self._head()))
        return reason

    # What always holds.

    @invariant()
    def rows_are_what_the_log_says(self) -> None:
        """Models with their labels, versions, aliases and schedules are the fold of the log."""
        self.run(self._rows.wait_for(self._head()))
        states = {state.name: state for state in self._now().values() if state.name}
        models = self._ask(lambda rows: queries.list_models(rows, v1.ListModelsRequest(show_deleted=True))).models
        assert {model.name: _facts_of(model) for model in models} == {
            name: _facts(state) for name, state in states.items()
        }
        listed = self._ask(lambda rows: queries.list_versions(rows, v1.ListVersionsRequest(show_deleted=True))).versions
        assert {(one.model, one.version): _version_facts_of(one) for one in listed} == {
            (name, number): (one.digest, one.description, dict(one.tags.items()), one.status, one.deleted, one.revision)
            for name, state in states.items()
            for number, one in state.versions.items()
        }
        waiting = self._ask(lambda rows: alias_queries.list_schedules(rows, v1.ListSchedulesRequest())).schedules
        assert {(one.schedule_id, one.alias, one.version) for one in waiting} == {
            (key, one.alias, one.version) for state in states.values() for key, one in state.schedules.items()
        }

    @invariant()
    def memory_is_what_the_log_says(self) -> None:
        """So are the aliases and the policies that questions about now are answered from."""
        for state in self._now().values():
            for alias, one in state.aliases.items():
                found = self._live.assignment(state.name, alias)
                digest = state.digest(one.version)
                assert (found.version, found.revision, found.digest) == (one.version, one.revision, digest)
        said = policies.State()
        for event in self._events():
            if event.stream == POLICIES_STREAM:
                said = policies.evolve(said, event)
        assert dict(self._live.policies.policies.items()) == dict(said.policies.items())
        assert self._live.policies.revision == said.revision

    @invariant()
    def the_past_is_what_the_log_said(self) -> None:
        """At every position, every alias is what the fold said after the last append that was whole by then."""
        now = {stream: state.name for stream, state in self._now().items() if state.name}
        whole = 0
        expected, asked = {}, []
        for at, states in sorted(self._past.items()):
            whole = at if at == 0 or self._events()[at - 1].closes_append else whole
            for stream, name in now.items():
                state = self._past[whole].get(stream, State())
                for alias in ("champion", "candidate"):
                    one = state.alias(alias)
                    asked.append((at, name, alias))
                    expected[at, name, alias] = (one.version, one.revision, state.digest(one.version))
            assert states is self._past[at]

        def answers(rows: Any) -> dict[tuple[int, str, str], tuple[int, int, str]]:
            found = {key: alias_queries.assignment(rows, key[1], key[2], key[0]) for key in asked}
            return {key: (one.version, one.revision, one.digest) for key, one in found.items()}

        assert self._ask(answers) == expected

    def _now(self) -> States:
        return self._past[self._head()]

    def _ask(self, question: Any) -> Any:
        return self.run(self._rows.query(question))

    def _head(self) -> int:
        return self.run(self._log.head())

    def _events(self) -> Sequence[RecordedEvent]:
        return self._log._events


def _facts(state: State) -> tuple[object, ...]:
    aliases = {(alias, one.version, one.revision) for alias, one in state.aliases.items() if one.version}
    tags = dict(state.tags.items())
    return state.description, tags, state.gate, state.deleted, len(state.versions), aliases


def _facts_of(model: v1.Model) -> tuple[object, ...]:
    aliases = {(one.alias, one.version, one.revision) for one in model.aliases}
    deleted = model.HasField("deleted_at")
    return model.description, dict(model.tags), model.registration_gate, deleted, model.latest_version, aliases


def _version_facts_of(one: v1.Version) -> tuple[object, ...]:
    deleted = one.HasField("deleted_at")
    return one.digest, one.description, dict(one.tags), one.status, deleted, one.revision


async def _awaited(job: Awaitable[T]) -> T:
    return await job


Registry.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRegistry = Registry.TestCase
