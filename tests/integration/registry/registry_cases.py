"""For every registry command: a request that succeeds, and a later change that makes its repetition impossible."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from tests.integration.two_writers import Writers
from tests.integration.up import SECONDS, Client, new_id

Prepared = tuple[Message, Callable[[], object]]
"""A request, and what another client does once it is written."""


@dataclass(frozen=True, slots=True)
class Case:
    """A command in a scenario.

    Attributes:
        service: The name of the stub in `Client`.
        method: The command.
        prepare: Returns the request, and what another client does.
        refusal: Why the first request is refused, with an event; empty if it succeeds.
        repeated_refusal: Why the same command, as a new request, is refused after that; empty if it has no effect, None
            if it would succeed.
    """

    service: str
    method: str
    prepare: Callable[[Writers], Prepared]
    refusal: str = ""
    repeated_refusal: str | None = ""

    def __str__(self) -> str:
        return f"{self.method}-{self.prepare.__name__.strip('_')}"


def call_method(client: Client, service: str, method: str, request: Message) -> Any:
    """Call a method of a service."""
    return getattr(getattr(client, service), method)(request, timeout=SECONDS)


# Models.


def _on_model(make: Callable[[str], Message], before: Callable[[Client, str], object] | None = None) -> Any:
    """Return a scenario of a command on a model, which is renamed after it."""

    def renamed(writers: Writers) -> Prepared:
        model = writers.one.new_model()
        if before:
            before(writers.one, model)
        return make(model), lambda: rename(writers.other, model)

    return renamed


def rename(client: Client, model: str) -> object:
    """Rename a model."""
    return client.registry.RenameModel(v1.RenameModelRequest(model=model, new_name=new_id()), timeout=SECONDS)


def _delete_model(client: Client, model: str) -> object:
    return client.registry.DeleteModel(v1.DeleteModelRequest(model=model), timeout=SECONDS)


def _delete_version(client: Client, model: str) -> object:
    return client.registry.DeleteVersion(v1.DeleteVersionRequest(model=model, version=2), timeout=SECONDS)


def _move(client: Client, model: str) -> object:
    return client.move(model, 1)


def _move_two_times(client: Client, model: str) -> object:
    return client.move(model, 1), client.move(model, 2)


def _new_model_renamed(writers: Writers) -> Prepared:
    name = new_id()
    return v1.CreateModelRequest(name=name), lambda: rename(writers.other, name)


def _deleted_model_comes_back_renamed(writers: Writers) -> Prepared:
    model = writers.one.new_model()

    def act() -> object:
        writers.other.registry.RestoreModel(v1.RestoreModelRequest(model=model), timeout=SECONDS)
        return rename(writers.other, model)

    return v1.DeleteModelRequest(model=model), act


def _new_name_renamed(writers: Writers) -> Prepared:
    model, name = writers.one.new_model(), new_id()
    return v1.RenameModelRequest(model=model, new_name=name), lambda: rename(writers.other, name)


def _first_version_renamed(writers: Writers) -> Prepared:
    name = new_id()
    request = v1.RegisterVersionRequest(model=name, digest=writers.one.upload())
    return request, lambda: rename(writers.other, name)


def _version_renamed(writers: Writers) -> Prepared:
    model = writers.one.new_model()
    request = v1.RegisterVersionRequest(model=model, digest=writers.one.upload())
    return request, lambda: rename(writers.other, model)


def _version_without_artifact(writers: Writers) -> Prepared:
    digest = writers.one.upload(new_id().encode())
    request = v1.RegisterVersionRequest(model=new_id(), digest=digest)
    return request, lambda: lose_artifact(writers, digest)


def lose_artifact(writers: Writers, digest: str) -> None:
    """Delete an artifact's manifest."""
    stored = list(writers.artifacts.rglob(digest.removeprefix("sha256:")))
    assert stored
    for file in stored:
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def _refused_version(writers: Writers) -> Prepared:
    model, digest = new_id(), writers.one.upload()
    gated = v1.CreateModelRequest(name=model, registration_gate="run.metrics.f1 > 0.5")
    writers.one.registry.CreateModel(gated, timeout=SECONDS)
    opened = v1.SetRegistrationGateRequest(model=model)
    request = v1.RegisterVersionRequest(model=model, digest=digest)
    return request, lambda: writers.other.registry.SetRegistrationGate(opened, timeout=SECONDS)


def _copy_renamed(writers: Writers) -> Prepared:
    model, copy = writers.one.new_model(), new_id()

    def act() -> None:
        rename(writers.other, model)
        rename(writers.other, copy)

    return v1.CopyVersionRequest(model=model, version=1, to_model=copy), act


def _set_policy(writers: Writers, model: str) -> Callable[[], object]:
    """Set a policy that refuses moves of a model; return a function that removes it."""
    policy = v1.Policy(name=new_id(), models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
    writers.one.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    lift = v1.RemovePolicyRequest(name=policy.name)
    return lambda: writers.other.policies.RemovePolicy(lift, timeout=SECONDS)


def _refused_move(writers: Writers) -> Prepared:
    model = writers.one.new_model()
    return v1.MoveAliasRequest(model=model, alias="champion", version=1), _set_policy(writers, model)


def _refused_release(writers: Writers) -> Prepared:
    model = writers.one.new_model()
    return _release(model), _set_policy(writers, model)


def _release(model: str) -> v1.MoveAliasesRequest:
    targets = [v1.AliasTarget(model=model, alias=alias, version=1) for alias in ("champion", "canary")]
    return v1.MoveAliasesRequest(targets=targets)


def _schedule(model: str) -> v1.ScheduleMoveRequest:
    return v1.ScheduleMoveRequest(model=model, alias="champion", version=1, at=Timestamp(seconds=4_000_000_000))


def _cancelled_schedule_renamed(writers: Writers) -> Prepared:
    model = writers.one.new_model()
    schedule = writers.one.registry.ScheduleMove(_schedule(model), timeout=SECONDS).schedule
    request = v1.CancelScheduleRequest(model=model, schedule_id=schedule.schedule_id)
    return request, lambda: rename(writers.other, model)


def _rollback_before_event(writers: Writers) -> Prepared:
    model = writers.one.new_model()
    writers.one.move(model, 1)
    moved = writers.one.move(model, 2).alias
    [event_id] = [
        change.event_id
        for change in writers.one.registry.ListAliasHistory(
            v1.ListAliasHistoryRequest(model=model, alias="champion"), timeout=SECONDS
        ).changes
        if change.revision == moved.revision
    ]
    request = v1.RollbackRequest(models=model, aliases="champion", before_event=event_id)
    return request, lambda: rename(writers.other, model)


def _policy_removed(writers: Writers) -> Prepared:
    policy = v1.Policy(name=new_id(), models=new_id(), aliases="*", reason_required=True)
    remove = v1.RemovePolicyRequest(name=policy.name)
    return v1.SetPolicyRequest(policy=policy), lambda: writers.other.policies.RemovePolicy(remove, timeout=SECONDS)


def _policy_stays(writers: Writers) -> Prepared:
    policy = v1.Policy(name=new_id(), models=new_id(), aliases="*", reason_required=True)
    return v1.SetPolicyRequest(policy=policy), lambda: None


def _policy_gone(writers: Writers) -> Prepared:
    policy = v1.Policy(name=new_id(), models=new_id(), aliases="*", reason_required=True)
    writers.one.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    return v1.RemovePolicyRequest(name=policy.name), lambda: None


REGISTRY = [
    Case("registry", "CreateModel", _new_model_renamed, repeated_refusal="MODEL_RENAMED"),
    Case("registry", "RenameModel", _new_name_renamed, repeated_refusal="MODEL_RENAMED"),
    *(
        Case("registry", method, prepare, repeated_refusal="MODEL_RENAMED")
        for method, prepare in (
            ("SetDescription", _on_model(lambda m: v1.SetDescriptionRequest(model=m, description="d"))),
            ("ChangeTags", _on_model(lambda m: v1.ChangeTagsRequest(model=m, set={"a": "b"}))),
            ("DeleteModel", _deleted_model_comes_back_renamed),
            ("RestoreModel", _on_model(lambda m: v1.RestoreModelRequest(model=m), _delete_model)),
            ("SetRegistrationGate", _on_model(lambda m: v1.SetRegistrationGateRequest(model=m, expression="true"))),
            (
                "SetVersionStatus",
                _on_model(lambda m: v1.SetVersionStatusRequest(model=m, version=1, status=v1.VERSION_STATUS_FAILED)),
            ),
            ("DeleteVersion", _on_model(lambda m: v1.DeleteVersionRequest(model=m, version=1))),
            ("RestoreVersion", _on_model(lambda m: v1.RestoreVersionRequest(model=m, version=2), _delete_version)),
            ("RegisterVersion", _first_version_renamed),
            ("RegisterVersion", _version_renamed),
            ("CopyVersion", _copy_renamed),
            ("MoveAlias", _on_model(lambda m: v1.MoveAliasRequest(model=m, alias="champion", version=1))),
            ("MoveAliases", _on_model(_release)),
            ("RemoveAlias", _on_model(lambda m: v1.RemoveAliasRequest(model=m, alias="champion"), _move)),
            ("ScheduleMove", _on_model(_schedule)),
            ("CancelSchedule", _cancelled_schedule_renamed),
            ("Rollback", _on_model(lambda m: v1.RollbackRequest(models=m, aliases="champion"), _move_two_times)),
            ("Rollback", _rollback_before_event),
        )
    ),
    Case("registry", "RegisterVersion", _version_without_artifact, repeated_refusal="ARTIFACT_NOT_FOUND"),
    Case("registry", "RegisterVersion", _refused_version, "GATE_FAILED", None),
    Case("registry", "MoveAlias", _refused_move, "GATE_FAILED", None),
    Case("registry", "MoveAliases", _refused_release, "GATE_FAILED", None),
    Case("policies", "SetPolicy", _policy_removed, repeated_refusal=None),
    Case("policies", "SetPolicy", _policy_stays),
    Case("policies", "RemovePolicy", _policy_gone, repeated_refusal="POLICY_NOT_FOUND"),
]
