"""Policies and gates on a real system: what they refuse, and the evidence that they record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from rollforward import v1
from rollforward.errors import InvalidRequest, NotFound, PreconditionFailed, from_rpc_error
from services.registry.gates.expression import RULES, recompute
from tests.integration.registry.scored_models import (
    BETTER,
    headers_at_head,
    log_metrics,
    move_request,
    new_run,
    new_scored_model,
    register_request,
)
from tests.integration.up import ACTOR, SECONDS, Headers, Up, new_id

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)


def refusal(
    system: Up, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, headers: Headers | None = None
) -> PreconditionFailed:
    """Return the error of a call whose refusal is recorded as an event."""
    metadata = headers_at_head(system) if headers is None else tuple(headers)
    with pytest.raises(grpc.RpcError) as raised:
        method(request, metadata=metadata, timeout=SECONDS)
    error = from_rpc_error(raised.value)
    assert isinstance(error, PreconditionFailed)
    return error


def payloads(system: Up, model: str, kind: type[M]) -> list[M]:
    """Return a model's events of a type from the audit log, newest first."""
    request = v1.ListEventsRequest(log="registry", stream=f"model/{model}", type=kind.DESCRIPTOR.full_name)
    messages = []
    for event in system.audit.ListEvents(request, metadata=headers_at_head(system), timeout=SECONDS).events:
        payload = kind()
        assert event.data.Unpack(payload)
        messages.append(payload)
    return messages


def until(poll: Callable[[], list[M]]) -> list[M]:
    """Poll until the result is not empty, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (result := poll()):
        assert time.monotonic() < deadline
    return result


def version_of(system: Up, model: str, alias: str = "champion") -> int:
    """Return the version of an alias."""
    request = v1.ResolveAliasRequest(model=model, alias=alias)
    return system.registry.ResolveAlias(request, metadata=headers_at_head(system), timeout=SECONDS).alias.version


@pytest.fixture
def policies(system: Up) -> v1.PolicyServiceStub:
    """Return the stub of the policy service."""
    return v1.PolicyServiceStub(system.channel)


Declare = Callable[..., v1.SetPolicyResponse]


@pytest.fixture
def declare(policies: v1.PolicyServiceStub) -> Iterator[Declare]:
    """Return a function that declares policies; they are removed after the test."""
    names = set()

    def set_policy(**values: object) -> v1.SetPolicyResponse:
        policy = v1.Policy(**{"name": f"p{new_id()}", **values})  # type: ignore[arg-type]
        names.add(policy.name)
        return policies.SetPolicy(v1.SetPolicyRequest(policy=policy, reason="safety"), timeout=SECONDS)

    yield set_policy
    for name in names:
        policies.RemovePolicy(v1.RemovePolicyRequest(name=name), timeout=SECONDS)


class TestProtectedAliases:
    """Aliases protected by a policy: changed only with a reason and through its gate."""

    def test_move_without_reason_is_rejected(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="prod-*", reason_required=True)
        for reason in ("", " \n"):
            error = system.refused(system.registry.MoveAlias, move_request(model, 1, "prod-eu", reason=reason))
            assert isinstance(error, PreconditionFailed)
            assert error.reason == "REASON_REQUIRED"
        system.registry.MoveAlias(move_request(model, 1, "staging"), timeout=SECONDS)
        system.registry.MoveAlias(move_request(model, 1, "prod-eu", reason="tested"), timeout=SECONDS)
        removal = v1.RemoveAliasRequest(model=model, alias="prod-eu")
        assert system.refused(system.registry.RemoveAlias, removal).reason == "REASON_REQUIRED"

    def test_better_version_passes_gate_with_evidence(self, system: Up, declare: Declare) -> None:
        model, runs = new_scored_model(system, 0.8, 0.9)
        at = declare(name=f"better-{model}", models=model, aliases="champion", gate=BETTER).position
        for version in (1, 2):
            system.registry.MoveAlias(move_request(model, version), metadata=headers_at_head(system), timeout=SECONDS)
        second, first = payloads(system, model, v1.AliasMoved)
        (evidence,) = second.evidence
        assert (first.policy_revision, second.policy_revision) == (at, at)
        assert (evidence.passed, evidence.expression, evidence.policy) == (True, BETTER, f"better-{model}")
        assert evidence.run == v1.GateRun(run_id=runs[1], metrics={"f1": 0.9}, version=2)
        assert evidence.others["champion"] == v1.GateRun(run_id=runs[0], metrics={"f1": 0.8}, version=1)
        assert 0 < evidence.tracking_position <= system.heads()["tracking"]
        assert recompute(evidence)

    def test_worse_version_fails_gate_with_evidence(self, system: Up, declare: Declare) -> None:
        model, _ = new_scored_model(system, 0.9, 0.8)
        declare(models=model, aliases="champion", gate=BETTER)
        system.registry.MoveAlias(move_request(model, 1), metadata=headers_at_head(system), timeout=SECONDS)
        error = refusal(system, system.registry.MoveAlias, move_request(model, 2, reason="hope"))
        assert error.reason == "GATE_FAILED"
        assert version_of(system, model) == 1
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert (refused.alias, refused.from_version, refused.to_version) == ("champion", 1, 2)
        (evidence,) = refused.evidence
        assert error.evidence == evidence
        assert not evidence.passed
        assert recompute(evidence)

    def test_all_gates_are_evaluated_and_recorded(self, system: Up, declare: Declare) -> None:
        model, _ = new_scored_model(system, 0.9)
        for name, gate in (("a", "candidate.metrics.f1 > 0.5"), ("b", "candidate.metrics.f1 > 0.95"), ("c", "false")):
            declare(name=f"{name}-{model}", models=model, aliases="*", gate=gate)
        assert refusal(system, system.registry.MoveAlias, move_request(model, 1)).metadata["policy"] == f"b-{model}"
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert [evidence.passed for evidence in refused.evidence] == [True, False, False]

    @pytest.mark.parametrize(
        "gate",
        [
            pytest.param("candidate.metrics.auc > 0.5", id="unknown metric"),
            pytest.param("int(candidate.run_id) == 0", id="text that is not a number"),
            pytest.param("candidate.metrics.f1 > champion.metrics.f1", id="no champion"),
            pytest.param("candidate.metrics.nan < 1.0", id="NaN"),
            pytest.param("candidate.metrics.f1 / candidate.metrics.zero > 0.5", id="division by zero"),
            pytest.param("candidate.metrics.zero / candidate.metrics.zero != 0.5", id="zero divided by zero"),
            pytest.param("candidate.metrics.all(k, candidate.metrics[k] != 7.0)", id="NaN in a loop"),
        ],
    )
    def test_gate_that_cannot_be_evaluated_refuses_move(self, system: Up, declare: Declare, gate: str) -> None:
        model, runs = new_scored_model(system, 0.9)
        log_metrics(system, runs[0], {"nan": float("nan"), "zero": 0.0})
        declare(models=model, aliases="champion", gate=gate)
        error = refusal(system, system.registry.MoveAlias, move_request(model, 1))
        assert error.reason == "GATE_FAILED"
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert refused.evidence[0].detail
        assert recompute(refused.evidence[0])

    def test_version_without_run_fails_gate_on_metrics(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        assert refusal(system, system.registry.MoveAlias, move_request(model, 1)).reason == "GATE_FAILED"

    def test_gate_sees_latest_metrics(self, system: Up, declare: Declare) -> None:
        model, runs = new_scored_model(system, 0.1)
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        for score in (0.2, 0.6, 0.3, 0.7):
            log_metrics(system, runs[0], {"f1": score})
            request = move_request(model, 1)
            if score < 0.5:
                assert refusal(system, system.registry.MoveAlias, request, ACTOR).reason == "GATE_FAILED"
            else:
                system.registry.MoveAlias(request, timeout=SECONDS)
                removal = v1.RemoveAliasRequest(model=model, alias="champion", reason="again")
                system.registry.RemoveAlias(removal, timeout=SECONDS)

    def test_repeated_request_gets_same_refusal(self, system: Up, declare: Declare) -> None:
        model, runs = new_scored_model(system, 0.1)
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        request = move_request(model, 1, request_id=new_id())
        first = refusal(system, system.registry.MoveAlias, request)
        log_metrics(system, runs[0], {"f1": 0.9})
        again = refusal(system, system.registry.MoveAlias, request)
        assert (again.reason, again.evidence) == ("GATE_FAILED", first.evidence)
        assert len(payloads(system, model, v1.AliasMoveRefused)) == 1
        request.request_id = new_id()
        system.registry.MoveAlias(request, metadata=headers_at_head(system), timeout=SECONDS)
        assert version_of(system, model) == 1

    def test_release_set_is_refused_whole(self, system: Up, declare: Declare) -> None:
        good, bad = new_scored_model(system, 0.9)[0], new_scored_model(system, 0.1)[0]
        declare(models=bad, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        targets = [v1.AliasTarget(model=model, alias="champion", version=1) for model in (good, bad)]
        error = refusal(system, system.registry.MoveAliases, v1.MoveAliasesRequest(targets=targets))
        assert (error.reason, error.metadata["model"]) == ("GATE_FAILED", bad)
        assert not payloads(system, good, v1.AliasMoved)
        assert len(payloads(system, bad, v1.AliasMoveRefused)) == 1

    def test_rollback_to_recent_version_skips_gate_and_records_it(self, system: Up, declare: Declare) -> None:
        model, _ = new_scored_model(system, 0.8, 0.9)
        declare(models=model, aliases="champion", gate=BETTER)
        for version in (1, 2):
            system.registry.MoveAlias(move_request(model, version), metadata=headers_at_head(system), timeout=SECONDS)
        assert refusal(system, system.registry.MoveAlias, move_request(model, 1)).reason == "GATE_FAILED"
        request = v1.RollbackRequest(models=model, aliases="champion", reason="worse")
        system.registry.Rollback(request, metadata=headers_at_head(system), timeout=SECONDS)
        moved = payloads(system, model, v1.AliasMoved)[0]
        assert (moved.to_version, moved.cause) == (1, v1.ALIAS_CAUSE_ROLLBACK)
        assert (list(moved.skipped_gates), list(moved.evidence)) == ([BETTER], [])

    def test_renamed_model_stays_bound_by_policy(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="champion", reason_required=True)
        renaming = v1.RenameModelRequest(model=model, new_name=f"{model}-free")
        system.registry.RenameModel(renaming, timeout=SECONDS)
        request = v1.MoveAliasRequest(model=f"{model}-free", alias="champion", version=1)
        assert system.refused(system.registry.MoveAlias, request).reason == "REASON_REQUIRED"


class TestRegistration:
    """Policies without aliases: they bind registrations."""

    def test_refused_registration_records_evidence(self, system: Up, declare: Declare) -> None:
        model, _ = new_scored_model(system, 0.9)
        declare(models=model, gate="run.metrics.f1 > 0.5")
        bad = new_run(system, f1=0.4)
        error = refusal(system, system.registry.RegisterVersion, register_request(model, bad))
        assert error.reason == "GATE_FAILED"
        (refused,) = payloads(system, model, v1.VersionRefused)
        assert refused.run_id == bad
        assert recompute(refused.evidence[0])
        good = register_request(model, new_run(system, f1=0.6))
        done = system.registry.RegisterVersion(good, metadata=headers_at_head(system), timeout=SECONDS)
        assert done.version.version == 2
        (evidence,) = done.version.policy_evidence
        assert evidence.passed
        assert recompute(evidence)

    def test_refused_registration_creates_no_model(self, system: Up, declare: Declare) -> None:
        model = f"model-{new_id()}"
        declare(models=model, gate="run.metrics.f1 > 0.5")
        refused = refusal(system, system.registry.RegisterVersion, register_request(model, new_run(system, f1=0.4)))
        assert refused.reason == "GATE_FAILED"
        assert len(payloads(system, model, v1.VersionRefused)) == 1
        model_request = v1.GetModelRequest(name=model)
        assert isinstance(system.refused(system.registry.GetModel, model_request, headers_at_head(system)), NotFound)
        better = register_request(model, new_run(system, f1=0.9))
        done = system.registry.RegisterVersion(better, metadata=headers_at_head(system), timeout=SECONDS)
        assert done.version.version == 1

    def test_registration_needs_reason_and_passes_all_gates(self, system: Up, declare: Declare) -> None:
        model, run_id = f"model-{new_id()}", new_run(system, f1=0.6)
        own = v1.CreateModelRequest(name=model, registration_gate="run.metrics.f1 > 0.5")
        system.registry.CreateModel(own, timeout=SECONDS)
        declare(models=model, reason_required=True, gate="run.metrics.f1 > 0.55 && run.tags.team == 'risk'")
        without_reason = register_request(model, run_id)
        assert (
            system.refused(system.registry.RegisterVersion, without_reason, headers_at_head(system)).reason
            == "REASON_REQUIRED"
        )
        request = v1.RegisterVersionRequest(
            model=model, run_id=run_id, artifact_path="model", tags={"team": "risk"}, reason="tested"
        )
        version = system.registry.RegisterVersion(request, metadata=headers_at_head(system), timeout=SECONDS).version
        assert (version.evidence.passed, [evidence.passed for evidence in version.policy_evidence]) == (True, [True])


NO_RATE = "run.metrics.f1 / run.metrics.zero > 0.5"
NO_RATE_OF_MOVE = NO_RATE.replace("run.", "candidate.")


class TestInfiniteValues:
    """Infinite values in gates: they refuse everywhere, and the evidence names the expression."""

    @pytest.fixture
    def model_with_zero(self, system: Up) -> str:
        """Create a model whose version has a metric of zero."""
        model, runs = new_scored_model(system, 0.9)
        log_metrics(system, runs[0], {"zero": 0.0})
        return model

    @pytest.mark.parametrize("own", [True, False], ids=["registration gate", "policy"])
    def test_infinite_value_refuses_registration(self, system: Up, declare: Declare, own: bool) -> None:
        model, run_id = f"model-{new_id()}", new_run(system, f1=0.9, zero=0.0)
        gate = v1.CreateModelRequest(name=model, registration_gate=NO_RATE if own else "")
        system.registry.CreateModel(gate, timeout=SECONDS)
        if not own:
            declare(models=model, gate=NO_RATE)
        error = refusal(system, system.registry.RegisterVersion, register_request(model, run_id))
        (refused,) = payloads(system, model, v1.VersionRefused)
        assert (error.reason, refused.evidence[0].rules) == ("GATE_FAILED", RULES)
        assert "run.metrics.f1 / run.metrics.zero is inf" in refused.evidence[0].detail

    def test_infinite_value_refuses_scheduled_move(self, system: Up, declare: Declare, model_with_zero: str) -> None:
        declare(models=model_with_zero, aliases="champion", gate=NO_RATE_OF_MOVE)
        request = v1.ScheduleMoveRequest(model=model_with_zero, alias="champion", version=1)
        request.at.FromNanoseconds(time.time_ns() + 500_000_000)
        system.registry.ScheduleMove(request, timeout=SECONDS)
        refused = until(lambda: payloads(system, model_with_zero, v1.AliasScheduleRefused))
        assert refused[0].refusal == "GATE_FAILED"
        assert "candidate.metrics.zero is inf" in refused[0].evidence[0].detail
        assert recompute(refused[0].evidence[0])

    def test_infinite_value_fails_in_trial_and_replay(
        self, system: Up, policies: v1.PolicyServiceStub, model_with_zero: str
    ) -> None:
        system.move(model_with_zero, 1)
        trial = v1.TestGateRequest(model=model_with_zero, expression=NO_RATE)
        (evidence,) = policies.TestGate(trial, metadata=headers_at_head(system), timeout=SECONDS).evidence
        replay = v1.ReplayGateRequest(models=model_with_zero, expression=NO_RATE_OF_MOVE)
        (move,) = policies.ReplayGate(replay, metadata=headers_at_head(system), timeout=SECONDS).moves
        for result in (evidence, move.evidence):
            assert (result.passed, result.rules) == (False, RULES)
            assert "metrics.zero is inf" in result.detail


class TestPolicies:
    """Policies: declared, changed, listed and removed, with immediate effect."""

    def test_changed_policy_binds_next_move(self, system: Up, declare: Declare, policies: v1.PolicyServiceStub) -> None:
        model, _ = new_scored_model(system, 0.6)
        name = f"p{new_id()}"
        for gate, passes in (("candidate.metrics.f1 > 0.9", False), ("candidate.metrics.f1 > 0.5", True)):
            declare(name=name, models=model, aliases="*", gate=gate)
            request = move_request(model, 1, f"a{new_id()}")
            if passes:
                system.registry.MoveAlias(request, metadata=headers_at_head(system), timeout=SECONDS)
            else:
                assert refusal(system, system.registry.MoveAlias, request).reason == "GATE_FAILED"
        declare(name=name, models=model, aliases="*", reason_required=True)
        assert system.refused(system.registry.MoveAlias, move_request(model, 1, "b")).reason == "REASON_REQUIRED"
        policies.RemovePolicy(v1.RemovePolicyRequest(name=name), timeout=SECONDS)
        system.registry.MoveAlias(move_request(model, 1, "b"), timeout=SECONDS)
        declare(name=name, models=model, aliases="*", reason_required=True)

    def test_policies_are_listed_by_name_with_revision(
        self, system: Up, declare: Declare, policies: v1.PolicyServiceStub
    ) -> None:
        prefix = f"p{new_id()}"
        declare(name=f"{prefix}b", models="nothing", aliases="prod-*", reason_required=True)
        last = declare(name=f"{prefix}a", models="nothing", aliases="prod-*", reason_required=True)
        listed = policies.ListPolicies(v1.ListPoliciesRequest(), metadata=headers_at_head(system), timeout=SECONDS)
        mine = [policy.name for policy in listed.policies if policy.name.startswith(prefix)]
        assert mine == [f"{prefix}a", f"{prefix}b"]
        assert listed.revision == last.position
        again = declare(name=f"{prefix}a", models="nothing", aliases="prod-*", reason_required=True)
        assert again.position == last.position

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            (v1.Policy(name="n", models="*", aliases="*"), "INVALID_POLICY"),
            (v1.Policy(name="n", models="*", aliases="*", gate="run.metrics.f1 > 0.5"), "INVALID_GATE"),
            (v1.Policy(name="n", models="*", aliases="*", gate="candidate.params.p.matches('(a+)+')"), "INVALID_GATE"),
            (v1.Policy(name="n/a", models="*", reason_required=True), "INVALID_POLICY"),
        ],
        ids=["no requirement", "variable of registrations", "regular expression", "invalid name"],
    )
    def test_invalid_policy_is_rejected(
        self, system: Up, policies: v1.PolicyServiceStub, policy: v1.Policy, reason: str
    ) -> None:
        error = system.refused(policies.SetPolicy, v1.SetPolicyRequest(policy=policy))
        assert isinstance(error, InvalidRequest)
        assert error.reason == reason

    def test_removal_of_unknown_policy_is_rejected(self, system: Up, policies: v1.PolicyServiceStub) -> None:
        error = system.refused(policies.RemovePolicy, v1.RemovePolicyRequest(name=new_id()))
        assert isinstance(error, NotFound)
        assert error.reason == "POLICY_NOT_FOUND"
