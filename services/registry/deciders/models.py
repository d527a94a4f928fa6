"""The rules of a model's stream: what may happen to a model and its versions; those of its aliases are in `aliases`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from google.protobuf.message import Message

from eventstore import MAX_EVENT_BYTES, Conflict, Decider, Kind, Rejected
from rollforward import v1
from services.registry.deciders import aliases
from services.registry.deciders.aliases import AliasCommand
from services.registry.deciders.policies import GateResult
from services.registry.deciders.preconditions import (
    UNBOUND,
    check_free,
    check_model,
    check_named,
    check_reason,
    check_version,
    gate_failed,
)
from services.registry.deciders.state import State, Tags, evolve
from services.validation import (
    MAX_DESCRIPTION_LENGTH,
    MAX_KEY_LENGTH,
    MAX_TAG_LENGTH,
    check_digest,
    check_model_name,
    check_prose,
    check_text,
)

STATUSES = (v1.VERSION_STATUS_READY, v1.VERSION_STATUS_PENDING, v1.VERSION_STATUS_FAILED)


@dataclass(frozen=True, slots=True)
class Register:
    """A request to register a version.

    Attributes:
        request: The request; for a copy, as if its files were registered again.
        digest: The digest of the artifact.
        evidence: The result of the model's own gate; None without one.
        gate_result: The result of the policies.
        copied_from: The version that it is a copy of.
        rejection: The reason why it is impossible, if it is.
    """

    request: v1.RegisterVersionRequest
    digest: str
    evidence: v1.GateEvidence | None = None
    gate_result: GateResult = UNBOUND
    copied_from: v1.VersionSource | None = None
    rejection: Rejected | None = None


ModelRequest: TypeAlias = (
    v1.CreateModelRequest
    | v1.SetDescriptionRequest
    | v1.ChangeTagsRequest
    | v1.DeleteModelRequest
    | v1.RestoreModelRequest
    | v1.SetRegistrationGateRequest
    | v1.SetVersionStatusRequest
    | v1.DeleteVersionRequest
    | v1.RestoreVersionRequest
)
ModelCommand: TypeAlias = AliasCommand | Register | ModelRequest


def decide(command: object, state: State) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        Conflict: It depends on a state that has changed.
        TypeError: It is not a command of a model.
    """
    if not isinstance(command, ModelCommand):
        raise TypeError(f"expected a command of a model, got {type(command).__name__}")
    if isinstance(command, AliasCommand):
        return aliases.decide(command, state)
    if isinstance(command, Register):
        return _register(command, state)
    return _decide(command, state)


def _decide(command: ModelRequest, state: State) -> Sequence[Message]:  # noqa: C901, PLR0911 - a case each
    match command:
        case v1.CreateModelRequest():
            return _create(command, state)
        case v1.SetDescriptionRequest():
            return _describe(command, state)
        case v1.ChangeTagsRequest():
            return _change_tags(command, state)
        case v1.DeleteModelRequest():
            return _delete_model(command, state)
        case v1.RestoreModelRequest():
            return _restore_model(command, state)
        case v1.SetRegistrationGateRequest():
            return _set_gate(command, state)
        case v1.SetVersionStatusRequest():
            return _set_status(command, state)
        case v1.DeleteVersionRequest() | v1.RestoreVersionRequest():
            return _delete_or_restore(command, state)
        case _:
            assert_never(command)


def _create(command: v1.CreateModelRequest, state: State) -> Sequence[Message]:
    check_model_name(command.name)
    _check_labels(command.description, command.tags)
    check_free(command.name, state)
    if state.name:
        check_named(command.name, state)
        raise exists(command.name)
    created = v1.ModelCreated(model=command.name, description=command.description, tags=command.tags)
    if not command.registration_gate:
        return [created]
    return [created, v1.RegistrationGateSet(model=command.name, to_expression=command.registration_gate)]


def exists(name: str) -> Rejected:
    """Return the refusal of a name that a model has."""
    return Rejected(Kind.EXISTS, "MODEL_EXISTS", f"model {name!r} already exists", model=name)


def _describe(command: v1.SetDescriptionRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    _check_labels(command.description, {})
    if not command.version:
        message = {"from_description": state.description, "to_description": command.description}
        same = command.description == state.description
        return [] if same else [v1.ModelDescribed(model=command.model, **message)]
    version = check_version(command.model, command.version, state)
    if command.description == version.description:
        return []
    return [
        v1.VersionDescribed(
            model=command.model,
            version=command.version,
            from_description=version.description,
            to_description=command.description,
        )
    ]


def _change_tags(command: v1.ChangeTagsRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    _check_labels("", command.set)
    if both := sorted(command.set.keys() & set(command.remove)):
        message = f"tag {both[0]!r} is both set and removed. Do one of the two"
        raise Rejected(Kind.INVALID, "INVALID_TAG", message, key=both[0])
    tags = check_version(command.model, command.version, state).tags if command.version else state.tags
    changes = _tag_changes(tags, command.set, command.remove)
    if not changes:
        return []
    _check_room({**dict(tags.items()), **command.set}, set(command.remove))
    if command.version:
        return [v1.VersionTagsChanged(model=command.model, version=command.version, changes=changes)]
    return [v1.ModelTagsChanged(model=command.model, changes=changes)]


def _tag_changes(tags: Tags, wanted: Mapping[str, str], unwanted: Sequence[str]) -> list[v1.TagChange]:
    changes = [
        v1.TagChange(key=key, from_value=tags.get(key), to_value=value)
        for key, value in wanted.items()
        if tags.get(key) != value
    ]
    changes += [v1.TagChange(key=key, from_value=tags[key]) for key in set(unwanted) if key in tags]
    return sorted(changes, key=lambda change: change.key)


def _check_room(tags: Mapping[str, str], unwanted: Set[str]) -> None:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in tags.items() if key not in unwanted)
    if size > MAX_EVENT_BYTES:
        message = f"too many tags: expected at most {MAX_EVENT_BYTES} bytes in all, got {size}"
        raise Rejected(Kind.INVALID, "INVALID_TAG", message)


def _delete_model(command: v1.DeleteModelRequest, state: State) -> Sequence[Message]:
    check_named(command.model, state)
    if state.deleted:
        return []
    if current := sorted(alias for alias, assignment in state.aliases.items() if assignment.version):
        message = f"model {command.model!r} has aliases: {', '.join(current)}. Remove them first"
        raise Rejected(Kind.PRECONDITION, "MODEL_IN_USE", message, model=command.model, aliases=",".join(current))
    return [v1.ModelDeleted(model=command.model)]


def _restore_model(command: v1.RestoreModelRequest, state: State) -> Sequence[Message]:
    check_named(command.model, state)
    return [v1.ModelRestored(model=command.model)] if state.deleted else []


def _set_gate(command: v1.SetRegistrationGateRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    if command.expression == state.gate:
        return []
    gate = v1.RegistrationGateSet(model=command.model, from_expression=state.gate, to_expression=command.expression)
    return [gate]


def _register(command: Register, state: State) -> Sequence[Message]:
    request = command.request
    if command.rejection:
        raise command.rejection
    check_model_name(request.model)
    check_digest(command.digest)
    _check_labels(request.description, request.tags)
    check_text(request.artifact_path, "artifact path", 1024, "INVALID_PATH", min_length=0)
    check_free(request.model, state)
    if state.name:
        check_model(request.model, state)
    check_reason(request.reason, command.gate_result)
    if (command.evidence.expression if command.evidence else "") != state.gate:
        raise Conflict("GATE_CHANGED", "the model's gate changed during the registration. Retry", model=request.model)
    if refused := _refused(command):
        return [refused]
    version = v1.VersionRegistered(
        model=request.model,
        version=len(state.versions) + 1,
        digest=command.digest,
        run_id=request.run_id,
        artifact_path=request.artifact_path,
        description=request.description,
        tags=request.tags,
        evidence=command.evidence,
        policy_evidence=command.gate_result.evidence,
        policy_revision=command.gate_result.policy_revision,
        copied_from=command.copied_from,
    )
    return [version] if state.name else [v1.ModelCreated(model=request.model), version]


def _refused(command: Register) -> v1.VersionRefused | None:
    evidence = [*([command.evidence] if command.evidence else []), *command.gate_result.evidence]
    if all(gate.passed for gate in evidence):
        return None
    return v1.VersionRefused(
        model=command.request.model,
        digest=command.digest,
        run_id=command.request.run_id,
        artifact_path=command.request.artifact_path,
        evidence=evidence,
        policy_revision=command.gate_result.policy_revision,
    )


def _set_status(command: v1.SetVersionStatusRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    version = check_version(command.model, command.version, state)
    if command.status not in STATUSES:
        raise Rejected(Kind.INVALID, "INVALID_STATUS", "invalid status: expected READY, PENDING or FAILED")
    if command.status == version.status:
        return []
    of = {"model": command.model, "version": command.version}
    return [v1.VersionStatusChanged(**of, from_status=version.status, to_status=command.status)]  # type: ignore[arg-type]


def _delete_or_restore(command: v1.DeleteVersionRequest | v1.RestoreVersionRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    version = check_version(command.model, command.version, state, deleted=True)
    deletes = isinstance(command, v1.DeleteVersionRequest)
    if version.deleted == deletes:
        return []
    if not deletes:
        return [v1.VersionRestored(model=command.model, version=command.version, digest=version.digest)]
    if current := state.names_of(command.version):
        message = f"version {command.version} of {command.model!r} has aliases: {', '.join(current)}"
        about: dict[str, Any] = {"model": command.model, "version": str(command.version), "aliases": ",".join(current)}
        raise Rejected(Kind.PRECONDITION, "VERSION_IN_USE", message, **about)
    return [v1.VersionDeleted(model=command.model, version=command.version, digest=version.digest)]


def _check_labels(description: str, tags: Mapping[str, str]) -> None:
    check_prose(description, "description", MAX_DESCRIPTION_LENGTH, "INVALID_DESCRIPTION")
    for key, value in tags.items():
        check_text(key, "tag key", MAX_KEY_LENGTH, "INVALID_TAG")
        check_prose(value, "tag value", MAX_TAG_LENGTH, "INVALID_TAG")


def refusal(event: Message) -> Rejected | None:
    """Return the error of an event that records a failed gate; None for other events."""
    match event:
        case v1.VersionRefused():
            return gate_failed(event.evidence, model=event.model, run_id=event.run_id)
        case v1.AliasMoveRefused():
            return gate_failed(event.evidence, model=event.model, alias=event.alias, version=str(event.to_version))
        case _:
            return None


DECIDER: Decider[State] = Decider(State(), decide, evolve, refusal=refusal)
