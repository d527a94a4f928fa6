"""Policies and gates on a real system: what they refuse, and what evidence they leave."""

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
from tests.integration.registry.scored import BETTER, log_metrics, moving, new_run, registering, scored, seen
from tests.integration.up import ACTOR, SECONDS, Headers, Up, new_id

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)


def refusal(
    system: Up, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, headers: Headers | None = None
) -> PreconditionFailed:
    """How a call is refused that leaves an event which says so."""
    known = seen(system) if headers is None else tuple(headers)
    with pytest.raises(grpc.RpcError) as raised:
        method(request, metadata=known, timeout=SECONDS)
    error = from_rpc_error(raised.value)
    assert isinstance(error, PreconditionFailed)
    return error


def payloads(system: Up, model: str, kind: type[M]) -> list[M]:
    """A model's events of a type, newest first, as the audit log has them."""
    request = v1.ListEventsRequest(log="registry", stream=f"model/{model}", type=kind.DESCRIPTOR.full_name)
    found = []
    for event in system.audit.ListEvents(request, metadata=seen(system), timeout=SECONDS).events:
        payload = kind()
        assert event.data.Unpack(payload)
        found.append(payload)
    return found


def until(ask: Callable[[], list[M]]) -> list[M]:
    """The first answer that is not empty."""
    deadline = time.monotonic() + SECONDS
    while not (found := ask()):
        assert time.monotonic() < deadline
    return found


def version_of(system: Up, model: str, alias: str = "champion") -> int:
    """The version that an alias names."""
    request = v1.ResolveAliasRequest(model=model, alias=alias)
    return system.registry.ResolveAlias(request, metadata=seen(system), timeout=SECONDS).alias.version


@pytest.fixture
def policies(system: Up) -> v1.PolicyServiceStub:
    """The service's stub."""
    return v1.PolicyServiceStub(system.channel)


Declare = Callable[..., v1.SetPolicyResponse]


@pytest.fixture
def declare(policies: v1.PolicyServiceStub) -> Iterator[Declare]:
    """Declares policies, which are removed after the test."""
    names = set()

    def set_policy(**values: object) -> v1.SetPolicyResponse:
        policy = v1.Policy(**{"name": f"p{new_id()}", **values})  # type: ignore[arg-type]
        names.add(policy.name)
        return policies.SetPolicy(v1.SetPolicyRequest(policy=policy, reason="safety"), timeout=SECONDS)

    yield set_policy
    for name in names:
        policies.RemovePolicy(v1.RemovePolicyRequest(name=name), timeout=SECONDS)


class TestProtectedAliases:
    """An alias that a policy protects is changed only with a reason and through its gate."""

    def test_moves_only_with_a_reason(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="prod-*", reason_required=True)
        for reason in ("", " \n"):
            error = system.refused(system.registry.MoveAlias, moving(model, 1, "prod-eu", reason=reason))
            assert isinstance(error, PreconditionFailed)
            assert error.reason == "REASON_REQUIRED"
        system.registry.MoveAlias(moving(model, 1, "staging"), timeout=SECONDS)
        system.registry.MoveAlias(moving(model, 1, "prod-eu", reason="tested"), timeout=SECONDS)
        removal = v1.RemoveAliasRequest(model=model, alias="prod-eu")
        assert system.refused(system.registry.RemoveAlias, removal).reason == "REASON_REQUIRED"

    def test_its_gate_lets_a_better_version_through_with_the_evidence(self, system: Up, declare: Declare) -> None:
        model, runs = scored(system, 0.8, 0.9)
        at = declare(name=f"better-{model}", models=model, aliases="champion", gate=BETTER).position
        for version in (1, 2):
            system.registry.MoveAlias(moving(model, version), metadata=seen(system), timeout=SECONDS)
        second, first = payloads(system, model, v1.AliasMoved)
        (evidence,) = second.evidence
        assert (first.policy_revision, second.policy_revision) == (at, at)
        assert (evidence.passed, evidence.expression, evidence.policy) == (True, BETTER, f"better-{model}")
        assert evidence.run == v1.GateRun(run_id=runs[1], metrics={"f1": 0.9}, version=2)
        assert evidence.others["champion"] == v1.GateRun(run_id=runs[0], metrics={"f1": 0.8}, version=1)
        assert 0 < evidence.tracking_position <= system.heads()["tracking"]
        assert recompute(evidence)

    def test_its_gate_refuses_a_worse_version_and_the_log_says_why(self, system: Up, declare: Declare) -> None:
        model, _ = scored(system, 0.9, 0.8)
        declare(models=model, aliases="champion", gate=BETTER)
        system.registry.MoveAlias(moving(model, 1), metadata=seen(system), timeout=SECONDS)
        error = refusal(system, system.registry.MoveAlias, moving(model, 2, reason="hope"))
        assert error.reason == "GATE_FAILED"
        assert version_of(system, model) == 1
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert (refused.alias, refused.from_version, refused.to_version) == ("champion", 1, 2)
        (evidence,) = refused.evidence
        assert error.evidence == evidence
        assert not evidence.passed
        assert recompute(evidence)

    def test_all_gates_are_asked_and_each_leaves_its_evidence(self, system: Up, declare: Declare) -> None:
        model, _ = scored(system, 0.9)
        for name, gate in (("a", "candidate.metrics.f1 > 0.5"), ("b", "candidate.metrics.f1 > 0.95"), ("c", "false")):
            declare(name=f"{name}-{model}", models=model, aliases="*", gate=gate)
        assert refusal(system, system.registry.MoveAlias, moving(model, 1)).metadata["policy"] == f"b-{model}"
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert [one.passed for one in refused.evidence] == [True, False, False]

    @pytest.mark.parametrize(
        "gate",
        [
            pytest.param("candidate.metrics.auc > 0.5", id="a metric that there is not"),
            pytest.param("int(candidate.run_id) == 0", id="a text that is no number"),
            pytest.param("candidate.metrics.f1 > champion.metrics.f1", id="nobody to compare with"),
            pytest.param("candidate.metrics.nan < 1.0", id="NaN"),
            pytest.param("candidate.metrics.f1 / candidate.metrics.zero > 0.5", id="a division by zero"),
            pytest.param("candidate.metrics.zero / candidate.metrics.zero != 0.5", id="zero by zero"),
            pytest.param("candidate.metrics.all(k, candidate.metrics[k] != 7.0)", id="NaN in a loop"),
        ],
    )
    def test_what_cannot_be_answered_is_refused(self, system: Up, declare: Declare, gate: str) -> None:
        model, runs = scored(system, 0.9)
        log_metrics(system, runs[0], {"nan": float("nan"), "zero": 0.0})
        declare(models=model, aliases="champion", gate=gate)
        error = refusal(system, system.registry.MoveAlias, moving(model, 1))
        assert error.reason == "GATE_FAILED"
        (refused,) = payloads(system, model, v1.AliasMoveRefused)
        assert refused.evidence[0].detail
        assert recompute(refused.evidence[0])

    def test_a_version_without_a_run_has_no_metrics(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        assert refusal(system, system.registry.MoveAlias, moving(model, 1)).reason == "GATE_FAILED"

    def test_the_metrics_that_were_logged_last_count_at_once(self, system: Up, declare: Declare) -> None:
        model, runs = scored(system, 0.1)
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        for score in (0.2, 0.6, 0.3, 0.7):
            log_metrics(system, runs[0], {"f1": score})
            request = moving(model, 1)
            if score < 0.5:
                assert refusal(system, system.registry.MoveAlias, request, ACTOR).reason == "GATE_FAILED"
            else:
                system.registry.MoveAlias(request, timeout=SECONDS)
                removal = v1.RemoveAliasRequest(model=model, alias="champion", reason="again")
                system.registry.RemoveAlias(removal, timeout=SECONDS)

    def test_the_same_request_gets_the_same_refusal(self, system: Up, declare: Declare) -> None:
        model, runs = scored(system, 0.1)
        declare(models=model, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        request = moving(model, 1, request_id=new_id())
        first = refusal(system, system.registry.MoveAlias, request)
        log_metrics(system, runs[0], {"f1": 0.9})
        again = refusal(system, system.registry.MoveAlias, request)
        assert (again.reason, again.evidence) == ("GATE_FAILED", first.evidence)
        assert len(payloads(system, model, v1.AliasMoveRefused)) == 1
        request.request_id = new_id()
        system.registry.MoveAlias(request, metadata=seen(system), timeout=SECONDS)
        assert version_of(system, model) == 1

    def test_a_release_set_is_refused_whole(self, system: Up, declare: Declare) -> None:
        good, bad = scored(system, 0.9)[0], scored(system, 0.1)[0]
        declare(models=bad, aliases="champion", gate="candidate.metrics.f1 > 0.5")
        targets = [v1.AliasTarget(model=model, alias="champion", version=1) for model in (good, bad)]
        error = refusal(system, system.registry.MoveAliases, v1.MoveAliasesRequest(targets=targets))
        assert (error.reason, error.metadata["model"]) == ("GATE_FAILED", bad)
        assert not payloads(system, good, v1.AliasMoved)
        assert len(payloads(system, bad, v1.AliasMoveRefused)) == 1

    def test_a_rollback_to_a_recent_holder_skips_the_gate_and_says_so(self, system: Up, declare: Declare) -> None:
        model, _ = scored(system, 0.8, 0.9)
        declare(models=model, aliases="champion", gate=BETTER)
        for version in (1, 2):
            system.registry.MoveAlias(moving(model, version), metadata=seen(system), timeout=SECONDS)
        assert refusal(system, system.registry.MoveAlias, moving(model, 1)).reason == "GATE_FAILED"
        request = v1.RollbackRequest(models=model, aliases="champion", reason="worse")
        system.registry.Rollback(request, metadata=seen(system), timeout=SECONDS)
        moved = payloads(system, model, v1.AliasMoved)[0]
        assert (moved.to_version, moved.cause) == (1, v1.ALIAS_CAUSE_ROLLBACK)
        assert (list(moved.skipped_gates), list(moved.evidence)) == ([BETTER], [])

    def test_a_rename_leads_out_of_no_policy(self, system: Up, model: str, declare: Declare) -> None:
        declare(models=model, aliases="champion", reason_required=True)
        asked = v1.RenameModelRequest(model=model, new_name=f"{model}-free")
        system.registry.RenameModel(asked, timeout=SECONDS)
        request = v1.MoveAliasRequest(model=f"{model}-free", alias="champion", version=1)
        assert system.refused(system.registry.MoveAlias, request).reason == "REASON_REQUIRED"


class TestRegistration:
    """A policy without aliases binds registration."""

    def test_is_refused_and_the_log_says_why(self, system: Up, declare: Declare) -> None:
        model, _ = scored(system, 0.9)
        declare(models=model, gate="run.metrics.f1 > 0.5")
        bad = new_run(system, f1=0.4)
        error = refusal(system, system.registry.RegisterVersion, registering(model, bad))
        assert error.reason == "GATE_FAILED"
        (refused,) = payloads(system, model, v1.VersionRefused)
        assert refused.run_id == bad
        assert recompute(refused.evidence[0])
        good = registering(model, new_run(system, f1=0.6))
        done = system.registry.RegisterVersion(good, metadata=seen(system), timeout=SECONDS)
        assert done.version.version == 2
        (evidence,) = done.version.policy_evidence
        assert evidence.passed
        assert recompute(evidence)

    def test_of_a_new_model_is_refused(self, system: Up, declare: Declare) -> None:
        model = f"model-{new_id()}"
        declare(models=model, gate="run.metrics.f1 > 0.5")
        refused = refusal(system, system.registry.RegisterVersion, registering(model, new_run(system, f1=0.4)))
        assert refused.reason == "GATE_FAILED"
        assert len(payloads(system, model, v1.VersionRefused)) == 1
        wanted = v1.GetModelRequest(name=model)
        assert isinstance(system.refused(system.registry.GetModel, wanted, seen(system)), NotFound)
        better = registering(model, new_run(system, f1=0.9))
        done = system.registry.RegisterVersion(better, metadata=seen(system), timeout=SECONDS)
        assert done.version.version == 1

    def test_takes_a_reason_and_both_kinds_of_gates(self, system: Up, declare: Declare) -> None:
        model, run_id = f"model-{new_id()}", new_run(system, f1=0.6)
        own = v1.CreateModelRequest(name=model, registration_gate="run.metrics.f1 > 0.5")
        system.registry.CreateModel(own, timeout=SECONDS)
        declare(models=model, reason_required=True, gate="run.metrics.f1 > 0.55 && run.tags.team == 'risk'")
        unsaid = registering(model, run_id)
        assert system.refused(system.registry.RegisterVersion, unsaid, seen(system)).reason == "REASON_REQUIRED"
        request = v1.RegisterVersionRequest(
            model=model, run_id=run_id, artifact_path="model", tags={"team": "risk"}, reason="tested"
        )
        version = system.registry.RegisterVersion(request, metadata=seen(system), timeout=SECONDS).version
        assert (version.evidence.passed, [one.passed for one in version.policy_evidence]) == (True, [True])


NO_RATE = "run.metrics.f1 / run.metrics.zero > 0.5"
NO_RATE_OF_MOVE = NO_RATE.replace("run.", "candidate.")


class TestNotFinite:
    """Wherever a gate is asked, a number that is not finite refuses, and the evidence names its part."""

    @pytest.fixture
    def judged(self, system: Up) -> str:
        """A model whose version has a metric that is zero."""
        model, runs = scored(system, 0.9)
        log_metrics(system, runs[0], {"zero": 0.0})
        return model

    @pytest.mark.parametrize("own", [True, False], ids=["the model's own gate", "a policy"])
    def test_in_a_registration(self, system: Up, declare: Declare, own: bool) -> None:
        model, run_id = f"model-{new_id()}", new_run(system, f1=0.9, zero=0.0)
        gate = v1.CreateModelRequest(name=model, registration_gate=NO_RATE if own else "")
        system.registry.CreateModel(gate, timeout=SECONDS)
        if not own:
            declare(models=model, gate=NO_RATE)
        error = refusal(system, system.registry.RegisterVersion, registering(model, run_id))
        (refused,) = payloads(system, model, v1.VersionRefused)
        assert (error.reason, refused.evidence[0].rules) == ("GATE_FAILED", RULES)
        assert "run.metrics.f1 / run.metrics.zero is inf" in refused.evidence[0].detail

    def test_in_a_schedule(self, system: Up, declare: Declare, judged: str) -> None:
        declare(models=judged, aliases="champion", gate=NO_RATE_OF_MOVE)
        request = v1.ScheduleMoveRequest(model=judged, alias="champion", version=1)
        request.at.FromNanoseconds(time.time_ns() + 500_000_000)
        system.registry.ScheduleMove(request, timeout=SECONDS)
        refused = until(lambda: payloads(system, judged, v1.AliasScheduleRefused))
        assert refused[0].refusal == "GATE_FAILED"
        assert "candidate.metrics.zero is inf" in refused[0].evidence[0].detail
        assert recompute(refused[0].evidence[0])

    def test_in_a_trial_and_a_replay(self, system: Up, policies: v1.PolicyServiceStub, judged: str) -> None:
        system.move(judged, 1)
        tried = v1.TestGateRequest(model=judged, expression=NO_RATE)
        (evidence,) = policies.TestGate(tried, metadata=seen(system), timeout=SECONDS).evidence
        replay = v1.ReplayGateRequest(models=judged, expression=NO_RATE_OF_MOVE)
        (move,) = policies.ReplayGate(replay, metadata=seen(system), timeout=SECONDS).moves
        for found in (evidence, move.evidence):
            assert (found.passed, found.rules) == (False, RULES)
            assert "metrics.zero is inf" in found.detail


class TestPolicies:
    """Policies are declared, changed, listed and removed, and bind at once."""

    def test_a_change_binds_the_next_move(self, system: Up, declare: Declare, policies: v1.PolicyServiceStub) -> None:
        model, _ = scored(system, 0.6)
        name = f"p{new_id()}"
        for gate, passes in (("candidate.metrics.f1 > 0.9", False), ("candidate.metrics.f1 > 0.5", True)):
            declare(name=name, models=model, aliases="*", gate=gate)
            request = moving(model, 1, f"a{new_id()}")
            if passes:
                system.registry.MoveAlias(request, metadata=seen(system), timeout=SECONDS)
            else:
                assert refusal(system, system.registry.MoveAlias, request).reason == "GATE_FAILED"
        declare(name=name, models=model, aliases="*", reason_required=True)
        assert system.refused(system.registry.MoveAlias, moving(model, 1, "b")).reason == "REASON_REQUIRED"
        policies.RemovePolicy(v1.RemovePolicyRequest(name=name), timeout=SECONDS)
        system.registry.MoveAlias(moving(model, 1, "b"), timeout=SECONDS)
        declare(name=name, models=model, aliases="*", reason_required=True)

    def test_are_listed_by_name_with_their_revision(
        self, system: Up, declare: Declare, policies: v1.PolicyServiceStub
    ) -> None:
        prefix = f"p{new_id()}"
        declare(name=f"{prefix}b", models="nothing", aliases="prod-*", reason_required=True)
        last = declare(name=f"{prefix}a", models="nothing", aliases="prod-*", reason_required=True)
        listed = policies.ListPolicies(v1.ListPoliciesRequest(), metadata=seen(system), timeout=SECONDS)
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
        ids=["asks for nothing", "another's variable", "costs", "name"],
    )
    def test_are_refused(self, system: Up, policies: v1.PolicyServiceStub, policy: v1.Policy, reason: str) -> None:
        error = system.refused(policies.SetPolicy, v1.SetPolicyRequest(policy=policy))
        assert isinstance(error, InvalidRequest)
        assert error.reason == reason

    def test_that_there_are_not_cannot_be_removed(self, system: Up, policies: v1.PolicyServiceStub) -> None:
        error = system.refused(policies.RemovePolicy, v1.RemovePolicyRequest(name=new_id()))
        assert isinstance(error, NotFound)
        assert error.reason == "POLICY_NOT_FOUND"
