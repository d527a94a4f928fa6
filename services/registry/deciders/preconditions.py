"""What several rules of the registry insist on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventstore import Conflict, Kind, Rejected
from rollforward import v1
from services.registry.deciders.policies import GateResult
from services.registry.deciders.state import Assignment, State, Version
from services.validation import check_model_name

UNBOUND = GateResult()
"""What is said of a command that no policy binds."""


def check_named(model: str, state: State) -> None:
    """Raise `Rejected` INVALID_NAME, MODEL_NOT_FOUND or MODEL_RENAMED unless the model is called so now."""
    check_model_name(model)
    if not state.name:
        raise model_not_found(model)
    if state.name != model:
        raise renamed(model, state.name)


def model_not_found(model: str) -> Rejected:
    """Return the refusal of a name that no model has or had."""
    return Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {model!r}", model=model)


def renamed(model: str, new_name: str) -> Rejected:
    """Return the refusal of a name that a model had before."""
    message = f"model {model!r} is called {new_name!r} now"
    return Rejected(Kind.PRECONDITION, "MODEL_RENAMED", message, model=model, renamed_to=new_name)


def check_free(model: str, state: State) -> None:
    """Raise `Conflict` NAME_TAKEN when another model was given the name since its stream was chosen."""
    if state.origin_of_name:
        raise Conflict("NAME_TAKEN", f"another model was called {model!r} meanwhile", model=model)


def check_model(model: str, state: State) -> None:
    """As `check_named`, and raises `Rejected` MODEL_DELETED when it is deleted."""
    check_named(model, state)
    if state.deleted:
        raise Rejected(Kind.PRECONDITION, "MODEL_DELETED", f"model {model!r} is deleted", model=model)


def check_version(model: str, version: int, state: State, *, deleted: bool = False) -> Version:
    """Return the version; raises `Rejected` VERSION_NOT_FOUND, or VERSION_DELETED unless a `deleted` one will do."""
    about: dict[str, Any] = {"model": model, "version": str(version)}
    if version not in state.versions:
        message = f"model {model!r} has no version {version}"
        raise Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", message, **about)
    found = state.versions[version]
    if found.deleted and not deleted:
        message = f"version {version} of {model!r} is deleted"
        raise Rejected(Kind.PRECONDITION, "VERSION_DELETED", message, **about)
    return found


def check_usable(model: str, version: int, state: State) -> Version:
    """As `check_version`, and raises `Rejected` VERSION_NOT_READY unless its status is READY."""
    found = check_version(model, version, state)
    if found.status != v1.VERSION_STATUS_READY:
        status = v1.VersionStatus.Name(found.status).removeprefix("VERSION_STATUS_")
        message = f"version {version} of {model!r} is {status}, not READY"
        about: dict[str, Any] = {"model": model, "version": str(version), "status": status}
        raise Rejected(Kind.PRECONDITION, "VERSION_NOT_READY", message, **about)
    return found


def check_revision(model: str, alias: str, expected: int | None, state: State) -> Assignment:
    """Return the alias's assignment; raises `Conflict` WRONG_REVISION when it is not at the expected revision."""
    held = state.alias(alias)
    as_unset = expected == 0 and not held.version
    if expected is not None and expected != held.revision and not as_unset:
        current = v1.Alias(
            model=model, alias=alias, version=held.version, digest=state.digest(held.version), revision=held.revision
        )
        message = f"{model}@{alias} is at revision {held.revision}, not {expected}"
        raise Conflict(
            "WRONG_REVISION", message, current=current, model=model, alias=alias, revision=str(held.revision)
        )
    return held


def check_reason(reason: str, gate_result: GateResult) -> None:
    """Raise `Rejected` REASON_REQUIRED when a policy asks for a reason and there is none."""
    if gate_result.reason_required and not reason.strip():
        policy = gate_result.reason_required[0]
        message = f"policy {policy!r} asks for a reason"
        raise Rejected(Kind.PRECONDITION, "REASON_REQUIRED", message, policy=policy)


def gate_failed(evidence: Iterable[v1.GateEvidence], **about: str) -> Rejected:
    """Return the refusal by the first gate that did not pass."""
    failed = next(one for one in evidence if not one.passed)
    message = f"the gate {failed.expression!r} does not hold: {failed.detail}"
    about |= {"expression": failed.expression, "policy": failed.policy}
    return Rejected(Kind.PRECONDITION, "GATE_FAILED", message, detail=failed, **about)


def alias_not_found(model: str, alias: str) -> Rejected:
    """Return the refusal of an alias that is not set."""
    return Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", f"{model}@{alias} is not set", model=model, alias=alias)
