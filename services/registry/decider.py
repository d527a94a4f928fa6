"""The rules of a model's stream: what may happen to a model, its versions and its aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore.decider import Decider
from eventstore.errors import Conflict, Kind, Rejected
from eventstore.event import RecordedEvent
from rollforward import v1
from services.names import check_alias, check_digest, check_model_name, check_prose, check_text
from services.registry import model_stream

RegistryEvent = v1.ModelCreated | v1.RegistrationGateSet | v1.VersionRegistered | v1.AliasMoved | v1.AliasRemoved


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which version an alias names since `revision` (version 0: none), and the last one that it named before."""

    version: int = 0
    revision: int = 0
    previous_version: int = 0
    previous_revision: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What deciding about a model takes: whether it exists, its gate, its versions' digests, its aliases."""

    exists: bool = False
    gate: str = ""
    digests: HashTrieMap[int, str] = field(default_factory=HashTrieMap)
    aliases: HashTrieMap[str, Assignment] = field(default_factory=HashTrieMap)

    def alias(self, name: str) -> Assignment:
        """The alias's assignment; without one, a version of 0."""
        return self.aliases.get(name) or Assignment()


@dataclass(frozen=True, slots=True)
class Register:
    """A request to register a version, with the digest that it names and, for a gated model, what the gate says."""

    request: v1.RegisterVersionRequest
    digest: str
    evidence: v1.GateEvidence | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A request to roll an alias back, with the past assignment that it names; None for the previous holder's."""

    request: v1.RollbackAliasRequest
    past: Assignment | None = None


Command = (
    v1.CreateModelRequest
    | v1.SetRegistrationGateRequest
    | v1.MoveAliasRequest
    | v1.RemoveAliasRequest
    | Register
    | Rollback
)


def decide(command: object, state: State) -> Sequence[Message]:
    """What a command makes happen."""
    match command:
        case v1.CreateModelRequest():
            return _create(command, state)
        case v1.SetRegistrationGateRequest():
            return _set_gate(command, state)
        case Register():
            return _register(command, state)
        case v1.MoveAliasRequest():
            return _move(command, state)
        case v1.RemoveAliasRequest():
            return _remove(command, state)
        case Rollback():
            return _roll_back(command, state)
        case _:
            raise TypeError(f"not a command of the registry: {type(command).__name__}")


def _create(command: v1.CreateModelRequest, state: State) -> Sequence[Message]:
    check_model_name(command.name)
    _check_labels(command.description, command.tags)
    if state.exists:
        raise Rejected(Kind.EXISTS, "MODEL_EXISTS", f"model {command.name!r} exists", model=command.name)
    created = v1.ModelCreated(model=command.name, description=command.description, tags=command.tags)
    if not command.registration_gate:
        return [created]
    return [created, v1.RegistrationGateSet(model=command.name, to_expression=command.registration_gate)]


def _set_gate(command: v1.SetRegistrationGateRequest, state: State) -> Sequence[Message]:
    _check_exists(command.model, state)
    if command.expression == state.gate:
        return []
    gate = v1.RegistrationGateSet(model=command.model, from_expression=state.gate, to_expression=command.expression)
    return [gate]


def _register(command: Register, state: State) -> Sequence[Message]:
    request = command.request
    check_model_name(request.model)
    check_digest(command.digest)
    _check_labels(request.description, request.tags)
    check_text(request.artifact_path, "the artifact's path", 1024, "INVALID_PATH", shortest=0)
    _check_gate(command, state)
    version = v1.VersionRegistered(
        model=request.model,
        version=len(state.digests) + 1,
        digest=command.digest,
        run_id=request.run_id,
        artifact_path=request.artifact_path,
        description=request.description,
        tags=request.tags,
        evidence=command.evidence,
    )
    return [version] if state.exists else [v1.ModelCreated(model=request.model), version]


def _check_gate(command: Register, state: State) -> None:
    if (command.evidence.expression if command.evidence else "") != state.gate:
        raise Conflict("GATE_CHANGED", "the model's gate was changed meanwhile", model=command.request.model)
    if command.evidence and not command.evidence.passed:
        words = f"the gate {state.gate!r} does not hold: {command.evidence.detail}"
        about = {"model": command.request.model, "expression": state.gate, "run_id": command.request.run_id}
        raise Rejected(Kind.PRECONDITION, "GATE_FAILED", words, detail=command.evidence, **about)


def _move(command: v1.MoveAliasRequest, state: State) -> Sequence[Message]:
    check_alias(command.alias)
    _check_exists(command.model, state)
    _check_version(command.model, command.version, state)
    expected = command.expected_revision if command.HasField("expected_revision") else None
    held = _check_revision(command.model, command.alias, expected, state)
    if held.version == command.version:
        return []
    return [_moved(command.model, command.alias, held.version, command.version, state)]


def _remove(command: v1.RemoveAliasRequest, state: State) -> Sequence[Message]:
    check_alias(command.alias)
    _check_exists(command.model, state)
    expected = command.expected_revision if command.HasField("expected_revision") else None
    held = _check_revision(command.model, command.alias, expected, state)
    if not held.version:
        raise _alias_not_found(command.model, command.alias)
    return [_removed(command.model, command.alias, held.version, v1.ALIAS_CAUSE_REQUEST, state)]


def _roll_back(command: Rollback, state: State) -> Sequence[Message]:
    request = command.request
    check_alias(request.alias)
    _check_exists(request.model, state)
    expected = request.expected_revision if request.HasField("expected_revision") else None
    held = _check_revision(request.model, request.alias, expected, state)
    if not held.revision:
        raise _alias_not_found(request.model, request.alias)
    past = command.past or Assignment(held.previous_version, held.previous_revision)
    if command.past is None and past.version in (0, held.version):
        words = f"{request.model}@{request.alias} has had no other version"
        raise Rejected(Kind.PRECONDITION, "NOTHING_TO_RESTORE", words, model=request.model, alias=request.alias)
    if past.version == held.version:
        return []
    if not past.version:
        return [_removed(request.model, request.alias, held.version, v1.ALIAS_CAUSE_ROLLBACK, state)]
    moved = _moved(request.model, request.alias, held.version, past.version, state)
    moved.cause = v1.ALIAS_CAUSE_ROLLBACK
    moved.restored_revision = past.revision
    return [moved]


def _moved(model: str, alias: str, before: int, after: int, state: State) -> v1.AliasMoved:
    return v1.AliasMoved(
        model=model,
        alias=alias,
        from_version=before,
        to_version=after,
        from_digest=state.digests[before] if before else "",
        to_digest=state.digests[after],
        cause=v1.ALIAS_CAUSE_REQUEST,
    )


def _removed(model: str, alias: str, before: int, cause: v1.AliasCause.ValueType, state: State) -> v1.AliasRemoved:
    return v1.AliasRemoved(
        model=model, alias=alias, from_version=before, from_digest=state.digests[before], cause=cause
    )


def _check_labels(description: str, tags: Mapping[str, str]) -> None:
    check_prose(description, "a description", 5000, "INVALID_DESCRIPTION")
    for key, value in tags.items():
        check_text(key, "a tag's key", 250, "INVALID_TAG")
        check_prose(value, "a tag's value", 5000, "INVALID_TAG")


def _check_exists(model: str, state: State) -> None:
    check_model_name(model)
    if not state.exists:
        raise Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {model!r}", model=model)


def _check_version(model: str, version: int, state: State) -> None:
    if version not in state.digests:
        words = f"model {model!r} has no version {version}"
        raise Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", words, model=model, version=str(version))


def _check_revision(model: str, alias: str, expected: int | None, state: State) -> Assignment:
    held = state.alias(alias)
    as_unset = expected == 0 and not held.version
    if expected is not None and expected != held.revision and not as_unset:
        digest = state.digests[held.version] if held.version else ""
        current = v1.Alias(model=model, alias=alias, version=held.version, digest=digest, revision=held.revision)
        words = f"{model}@{alias} is at revision {held.revision}, not {expected}"
        raise Conflict("WRONG_REVISION", words, current=current, model=model, alias=alias, revision=str(held.revision))
    return held


def _alias_not_found(model: str, alias: str) -> Rejected:
    return Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", f"{model}@{alias} is not set", model=model, alias=alias)


def evolve(state: State, event: RecordedEvent) -> State:
    """The state after an event."""
    fact: RegistryEvent = event.data  # type: ignore[assignment]
    match fact:
        case v1.ModelCreated():
            return replace(state, exists=True)
        case v1.RegistrationGateSet():
            return replace(state, gate=fact.to_expression)
        case v1.VersionRegistered():
            return replace(state, digests=state.digests.insert(fact.version, fact.digest))
        case v1.AliasMoved():
            return _assigned(state, fact.alias, fact.to_version, event.position)
        case v1.AliasRemoved():
            return _assigned(state, fact.alias, 0, event.position)
        case _:
            assert_never(fact)


def _assigned(state: State, alias: str, version: int, revision: int) -> State:
    held = state.alias(alias)
    before = (held.version, held.revision) if held.version else (held.previous_version, held.previous_revision)
    return replace(state, aliases=state.aliases.insert(alias, Assignment(version, revision, *before)))


def stream_of(event: Message) -> str:
    """The stream that an event belongs to: its model's."""
    return model_stream(event.model)  # type: ignore[attr-defined]


DECIDER: Decider[State] = Decider(State(), decide, evolve, stream_of)
