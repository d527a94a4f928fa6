"""A state machine of the registry, its rows and its memory, with invariants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata
from rollforward import v1
from services.registry import POLICIES_STREAM
from services.registry.deciders.aliases import Remove
from tests.model import registry_facts as payloads
from tests.model.registry_facts import ALIASES
from tests.model.registry_system import Asked, System

FIRST, SECOND = "the first model that is not deleted", "the second"
MODELS = st.sampled_from([FIRST, FIRST, FIRST, FIRST, SECOND, SECOND, "fraud", "new"])
ALIAS = st.sampled_from([ALIASES[0], *ALIASES])
NUMBERS = st.sampled_from([1, 2, 3, 1, 2, 3, 4, 5])  # 5 for a missing version
CURRENT, STALE = "the revision that it has", "one that it had"
EXPECTED = st.sampled_from([None, None, None, CURRENT, CURRENT, STALE])
DIGESTS = [f"sha256:{digit * 64}" for digit in "123"]
TAGS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=2)
# Version 0 stands for a removal.
MOVES = st.lists(st.tuples(ALIAS, NUMBERS | st.just(0), EXPECTED, st.booleans()), min_size=1, max_size=4)
# Patterns, whether to skip deleted versions, and how many positions to go back, None for the previous versions.
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


class Registry(RuleBasedStateMachine):
    """Random commands, repetitions, restarts and rebuilds over a log in memory and rows in a database that is empty."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.system = System(location)

    @initialize()
    def begin(self) -> None:
        """Create two models whose aliases have moved already."""
        self.system.start()
        for model, digests in {"fraud": DIGESTS, "iris": DIGESTS[:2]}.items():
            for digest in digests:
                self._register(model, digest)
        for version in (1, 2, 3):
            self._move("fraud", "champion", version)
        self._move_together([("fraud", "candidate", 1), (SECOND, "champion", 1)])
        self._move_together([("fraud", "candidate", 2), (SECOND, "champion", 2)])
        self._declare("p", "candidate.version > 1")

    def teardown(self) -> None:
        """Check everything a last time, and stop."""
        try:
            self.system.rebuild()
            self.system.check()
        finally:
            self.system.close()

    # Rules.

    @rule(model=MODELS, name=st.sampled_from(["fraud", "iris", "new", "other"]))
    def rename(self, model: str, name: str) -> None:
        """Rename a model."""
        request = v1.RenameModelRequest(model=self._named(model), new_name=name)
        self.system.do(lambda metadata: self.system.commands.rename(request, metadata))

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
        """Change the description, tags or status of a model or version."""
        model, version = self._named(model), self._version(model, version)
        self._on(model, v1.SetDescriptionRequest(model=model, version=version, description=text))
        gone = [key for key in "abc" if key not in tags]
        self._on(model, v1.ChangeTagsRequest(model=model, version=version, set=tags, remove=gone))
        if version and status:
            self._on(model, v1.SetVersionStatusRequest(model=model, version=version, status=status))

    @rule(model=MODELS, version=st.sampled_from([0, 0, 1, 2, 3]), delete=st.booleans(), restore=st.booleans())
    def delete(self, model: str, version: int, delete: bool, restore: bool) -> None:
        """Delete or restore, or both, a version, or a model without aliases."""
        gone = [state.name for state in self.system.now.values() if state.deleted]
        model = self._named(model) if delete or version or not gone else gone[0]
        version = self._version(model, version)
        for alias in ALIASES if delete and not version else ():
            self._on(model, Remove(v1.RemoveAliasRequest(model=model, alias=alias)))
        if delete:
            deleted = v1.DeleteVersionRequest if version else v1.DeleteModelRequest
            self._on(model, _of(deleted, model, version))
        if restore:
            restored = v1.RestoreVersionRequest if version else v1.RestoreModelRequest
            self._on(model, _of(restored, model, version))

    @rule(
        model=MODELS,
        expression=st.sampled_from(["", "true", "true", "false"]),
        name=st.sampled_from("pq"),
        gate=st.sampled_from(["", "candidate.version > 1"]),
        remove=st.booleans(),
    )
    def declare(self, model: str, expression: str, name: str, gate: str, remove: bool) -> None:
        """Set or remove a model's registration gate and a policy."""
        model = self._named(model)
        self._on(model, v1.SetRegistrationGateRequest(model=model, expression=expression))
        self._declare(name, gate, remove=remove)

    def _declare(self, name: str, gate: str, *, remove: bool = False) -> None:
        policy = v1.Policy(name=name, models="fraud*", aliases="champion", reason_required=True, gate=gate)
        request = v1.RemovePolicyRequest(name=name) if remove else v1.SetPolicyRequest(policy=policy)
        self.system.do(lambda metadata: self.system.policies.handle(POLICIES_STREAM, request, metadata))

    @rule(model=MODELS, digest=st.sampled_from(DIGESTS), version=NUMBERS, other=MODELS, copy=st.booleans())
    def register(self, model: str, digest: str, version: int, other: str, copy: bool) -> None:
        """Create a model, and register a version or copy one to another model."""
        model, other, version = self._named(model), self._named(other), self._version(self._named(model), version)
        self._on(model, v1.CreateModelRequest(name=model, tags={"b": "1", "a": "2"}))
        request = v1.CopyVersionRequest(model=model, version=version, to_model=other)
        if copy:
            self.system.do(lambda metadata: self.system.commands.copy(request, metadata))
        else:
            self._register(other, digest)

    def _register(self, model: str, digest: str) -> None:
        request = v1.RegisterVersionRequest(model=model, tags={"a": "1"})

        async def found() -> str:
            return digest

        self.system.do(lambda metadata: self.system.commands.register(request, found, metadata))

    @rule(model=MODELS, moves=MOVES, expire=st.booleans())
    def move(self, model: str, moves: Sequence[tuple[str, int, str | None, bool]], expire: bool) -> None:
        """Move or remove aliases, one after the other; then let an assignment expire."""
        model = self._named(model)
        for alias, version, expected, expires in moves:
            revision = self._revision(model, alias, expected)
            if version:
                self._move(model, alias, self._version(model, version), revision, EVER if expires else None)
            else:
                request = v1.RemoveAliasRequest(model=model, alias=alias, expected_revision=revision, reason="because")
                self.system.do(lambda metadata, request=request: self.system.commands.remove(request, metadata))  # type: ignore[misc]
        if expire:
            self._expire()

    def _move(
        self, model: str, alias: str, version: int, expected: int | None = None, expires_at: Timestamp | None = None
    ) -> None:
        request = v1.MoveAliasRequest(
            model=model, alias=alias, version=version, expected_revision=expected, expires_at=expires_at, reason="r"
        )
        before = self.system.state_of(model).alias(alias)
        if not self.system.do(lambda metadata: self.system.commands.move(request, metadata)):
            now = self.system.state_of(model).alias(alias)
            assert (now.version, now.expires_at) == (version, expires_at and expires_at.ToNanoseconds())
            assert (now == before) == (now.revision == before.revision)

    @rule(sets=st.lists(TARGETS, min_size=1, max_size=2), back=st.integers(0, 3))
    def release(self, sets: Sequence[Sequence[tuple[str, str, int]]], back: int) -> None:
        """Release sets are moved, each at one revision; then all goes back to before, or to the middle of one."""
        for wanted in sets:
            self._move_together(wanted)
        if back:
            self._roll_back("*", "*", skip=True, to=self.system.head - back)

    def _move_together(self, wanted: Sequence[tuple[str, str, int]]) -> None:
        named = {(self._named(model), alias): version for model, alias, version in wanted}
        targets = [
            v1.AliasTarget(model=model, alias=alias, version=self._version(model, version))
            for (model, alias), version in named.items()
        ]
        request = v1.MoveAliasesRequest(targets=targets, reason="because")
        self.system.do(lambda metadata: self.system.commands.move_together(request, metadata))

    @rule(
        model=MODELS,
        alias=ALIAS,
        version=NUMBERS,
        expected=EXPECTED,
        ends=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=2),
    )
    def schedule(
        self, model: str, alias: str, version: int, expected: str | None, ends: Sequence[tuple[int, bool]]
    ) -> None:
        """Schedule a move, and let one come due or cancel it."""
        model, version = self._named(model), self._version(model, version)
        revision = self._revision(model, alias, expected)
        request = v1.ScheduleMoveRequest(
            model=model, alias=alias, version=version, at=EVER, expected_revision=revision, reason="because"
        )
        schedule_id = f"{self.system.head:032x}"
        self.system.do(lambda metadata: self.system.commands.schedule(request, schedule_id, metadata))
        for which, fire in ends:
            self._end_schedule(which, fire)

    def _end_schedule(self, which: int, fire: bool) -> None:
        waiting = [(stream, key) for stream, state in self.system.now.items() for key in state.schedules]
        if not waiting:
            return
        stream, schedule_id = waiting[which % len(waiting)]
        name = self.system.now[stream].name
        if fire:
            self.system.do(lambda metadata: self.system.commands.fire(stream, schedule_id, metadata))
            assert schedule_id not in self.system.now[stream].schedules
        else:
            self._on(name, v1.CancelScheduleRequest(model=name, schedule_id=schedule_id))

    def _expire(self) -> None:
        expiring = [
            (stream, alias, one.revision)
            for stream, state in self.system.now.items()
            for alias, one in state.aliases.items()
            if one.expires_at
        ]
        if expiring:
            stream, alias, revision = expiring[-1]
            self.system.do(lambda metadata: self.system.commands.expire(stream, alias, revision, metadata))
            assert not self.system.now[stream].alias(alias).version

    @rule(wanted=ROLLBACKS)
    def roll_back(self, wanted: Sequence[tuple[str, str, bool, int | None]]) -> None:
        """Roll back, one rollback after the other."""
        for models, aliases, skip, back in wanted:
            self._roll_back(models, aliases, skip=skip, to=None if back is None else max(0, self.system.head - back))

    def _roll_back(self, models: str, aliases: str, *, skip: bool, to: int | None) -> None:
        """Roll aliases back to a position or to their previous versions, after a dry run."""
        request = v1.RollbackRequest(models=self._named(models), aliases=aliases, skip_missing=skip, reason="r")
        wanted = payloads.restored(self.system.events, self.system.now, request, to)
        dry = v1.RollbackRequest(dry_run=True)
        dry.MergeFrom(request)
        head = self.system.head
        try:
            seen = self.system.run(self.system.rollbacks.do(dry, to, Metadata("Zoë")))
        except (Rejected, Conflict):
            seen = None
        assert self.system.head == head
        if seen:
            request.expected_position = seen.computed_at
        answers: list[v1.RollbackResponse] = []

        async def job(metadata: Metadata) -> None:
            answers.append(await self.system.rollbacks.do(request, to, metadata))

        reason = self.system.do(job)
        if seen is None:
            assert not answers
            assert wanted or reason in {"NOTHING_TO_RESTORE", "ALIAS_NOT_FOUND", "MODEL_RENAMED"}
            return
        changes = {
            payloads.Restored(one.model, one.alias, one.from_version, one.to_version, one.restored_revision)
            for one in seen.changes
        }
        assert changes == wanted
        if not answers:
            assert reason == "GATE_FAILED"
            return
        assert list(answers[0].changes) == list(seen.changes)
        for change in seen.changes:
            if not change.skipped:
                alias = self.system.live.assignment(change.model, change.alias)
                assert (alias.version, alias.revision) == (change.to_version, answers[0].revision)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Retry an earlier request, which changes nothing; with another command it is rejected."""
        asked = data.draw(st.sampled_from(self.system.done))
        head = self.system.head
        # Its model may have another name, or be deleted, by now.
        assert self.system.outcome(asked) not in {"REQUEST_ID_REUSED", "STREAM_BUSY", "WRONG_REVISION"}
        assert self.system.head == head
        metadata = replace(asked.metadata, request_digest="other")
        request = v1.CreateModelRequest(name="other")
        other = Asked(lambda metadata: self.system.commands.handle("other", request, metadata), metadata)
        assert self.system.outcome(other) == "REQUEST_ID_REUSED"
        assert self.system.head == head

    @rule(rebuild=st.booleans())
    def restart(self, rebuild: bool) -> None:
        """Restart the process without its caches, or rebuild the rows."""
        self.system.restart()
        if rebuild:
            self.system.rebuild()

    def _named(self, model: str) -> str:
        names = [state.name for state in self.system.now.values() if state.name and not state.deleted]
        if model not in (FIRST, SECOND):
            return model
        return (names or ["fraud"])[int(model == SECOND and len(names) > 1)]

    def _version(self, model: str, number: int) -> int:
        """Return one of the model's versions, if it has any, or the next one."""
        known = len(self.system.state_of(model).versions)
        if not number or not known:
            return number
        return known + 1 if number > 4 else (number - 1) % known + 1

    def _revision(self, model: str, alias: str, expected: str | None) -> int | None:
        revision = self.system.state_of(model).alias(alias).revision
        return None if expected is None else revision if expected == CURRENT else max(0, revision - 1)

    def _on(self, model: str, command: object) -> None:
        self.system.do(lambda metadata: self.system.commands.handle(model, command, metadata))

    @invariant()
    def holds(self) -> None:
        """Check that rows and memory equal the log."""
        self.system.check()


def _of(command: Callable[..., Message], model: str, version: int) -> Message:
    return command(model=model, version=version) if version else command(model=model)
