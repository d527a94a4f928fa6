"""Preconditions that several commands of the registry share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventstore import Conflict, Kind, Rejected
from rollforward import v1
from services.registry.deciders.policies import GateResult
from services.registry.deciders.state import Assignment, State, Version
from services.validation import check_model_name

UNBOUND = GateResult()
"""The gate result of a command that no policy binds."""


def check_named(model: str, state: State) -> None:
    """Raise `Rejected` INVALID_NAME, MODEL_NOT_FOUND or MODEL_RENAMED unless this is the model's current name."""
    check_model_name(model)
    if not state.name:
        raise model_not_found(model)
    if state.name != model:
        raise renamed(model, state.name)


def model_not_found(model: str) -> Rejected:
    """Return the error for a name that no model has or had."""
    return Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model has the name {model!r}", model=model)


def renamed(model: str, new_name: str) -> Rejected:
    """Return the error for a former name of a model."""
    message = f"model {model!r} was renamed to {new_name!r}"
    return Rejected(Kind.PRECONDITION, "MODEL_RENAMED", message, model=model, renamed_to=new_name)


def check_free(model: str, state: State) -> None:
    """Raise `Conflict` NAME_TAKEN if another model took the name after the stream was chosen."""
    if state.origin_of_name:
        raise Conflict("NAME_TAKEN", f"another model took the name {model!r} during the request. Retry", model=model)


def check_model(model: str, state: State) -> None:
    """Check as `check_named`, and raise `Rejected` MODEL_DELETED if the model is deleted."""
    check_named(model, state)
    if state.deleted:
        raise Rejected(Kind.PRECONDITION, "MODEL_DELETED", f"model {model!r} is deleted", model=model)


def check_version(model: str, version: int, state: State, *, deleted: bool = False) -> Version:
    """Return a version. Raises `Rejected` VERSION_NOT_FOUND, or VERSION_DELETED unless `deleted` allows it."""
    details: dict[str, Any] = {"model": model, "version": str(version)}
    if version not in state.versions:
        message = f"model {model!r} has no version {version}"
        raise Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", message, **details)
    known = state.versions[version]
    if known.deleted and not deleted:
        message = f"version {version} of {model!r} is deleted"
        raise Rejected(Kind.PRECONDITION, "VERSION_DELETED", message, **details)
    return known


def check_usable(model: str, version: int, state: State) -> Version:
    """Check as `check_version`, and raise `Rejected` VERSION_NOT_READY unless the status is READY."""
    known = check_version(model, version, state)
    if known.status != v1.VERSION_STATUS_READY:
        status = v1.VersionStatus.Name(known.status).removeprefix("VERSION_STATUS_")
        message = f"version {version} of {model!r} is {status}: expected READY"
        details: dict[str, Any] = {"model": model, "version": str(version), "status": status}
        raise Rejected(Kind.PRECONDITION, "VERSION_NOT_READY", message, **details)
    return known


def check_revision(model: str, alias: str, expected: int | None, state: State) -> Assignment:
    """Return the alias's assignment. Raises `Conflict` WRONG_REVISION unless it is at the expected revision."""
    current = state.alias(alias)
    as_unset = expected == 0 and not current.version
    if expected is not None and expected != current.revision and not as_unset:
        current_alias = v1.Alias(
            model=model,
            alias=alias,
            version=current.version,
            digest=state.digest(current.version),
            revision=current.revision,
        )
        message = f"{model}@{alias} is at revision {current.revision}, not {expected}"
        raise Conflict(
            "WRONG_REVISION", message, current=current_alias, model=model, alias=alias, revision=str(current.revision)
        )
    return current


def check_reason(reason: str, gate_result: GateResult) -> None:
    """Raise `Rejected` REASON_REQUIRED if a policy requires a reason and there is none."""
    if gate_result.reason_required and not reason.strip():
        policy = gate_result.reason_required[0]
        message = f"policy {policy!r} requires a reason"
        raise Rejected(Kind.PRECONDITION, "REASON_REQUIRED", message, policy=policy)


def gate_failed(evidence: Iterable[v1.GateEvidence], **details: str) -> Rejected:
    """Return the error of the first gate that failed."""
    failed = next(gate for gate in evidence if not gate.passed)
    message = f"gate {failed.expression!r} failed: {failed.detail}"
    details |= {"expression": failed.expression, "policy": failed.policy}
    return Rejected(Kind.PRECONDITION, "GATE_FAILED", message, detail=failed, **details)


def alias_not_found(model: str, alias: str) -> Rejected:
    """Return the error for an alias that is not set."""
    return Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", f"{model}@{alias} is not set", model=model, alias=alias)
