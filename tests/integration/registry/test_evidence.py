"""Recorded gate decisions are recomputed on request, and unfounded ones are found."""

from __future__ import annotations

import pytest

import rollforward as rf
from eventstore.event import Metadata, NewEvent
from eventstore.ids import new_id
from eventstore.memory import MemoryStore
from rollforward import v1
from services import registry
from services.registry.gates import evidence as proofs
from services.registry.gates.expression import evaluate
from tests.integration.cli.command_line import Cli, answer, done
from tests.integration.registry.scored_models import (
    BETTER,
    headers_at_head,
    move_request,
    new_run,
    new_scored_model,
    register_request,
)
from tests.integration.up import SECONDS, Up

OTHERS = {"current": v1.GateRun(run_id="r1", version=1, metrics={"f1": 0.8})}
FALSE = "candidate.metrics.f1 > 0.95"


def evidence(expression: str = BETTER, version: int = 2) -> v1.GateEvidence:
    """Evaluate a gate of moves."""
    candidate = v1.GateRun(run_id="r2", version=version, metrics={"f1": 0.9})
    return evaluate(expression, {"candidate": candidate, "champion": OTHERS["current"], **OTHERS}, 7)


def forged(passed: bool) -> v1.GateEvidence:
    """Return evidence whose result contradicts its values."""
    contradictory = evidence(FALSE if passed else BETTER)
    contradictory.passed = passed
    return contradictory


def moved(*evidences: v1.GateEvidence, refused: bool = False) -> v1.AliasMoved | v1.AliasMoveRefused:
    """Return the event of a move with evidence, or of its refusal."""
    kind = v1.AliasMoveRefused if refused else v1.AliasMoved
    return kind(model="m", alias="champion", from_version=1, to_version=2, evidence=evidences)


async def check(*payloads: object) -> v1.CheckEvidenceResponse:
    """Check the evidence in a log of these events, each its own append."""
    log = MemoryStore("registry", registry.EVENTS)
    for payload in payloads:
        await log.append([NewEvent("model/m", payload, Metadata("Ann"), key := new_id(), key)])  # type: ignore[arg-type]
    return await proofs.check(log, 0)


async def test_honest_log_has_no_unfounded_decisions() -> None:
    scheduled = v1.AliasScheduleRefused(model="m", alias="champion", refusal="GATE_FAILED", evidence=[evidence(FALSE)])
    run = evaluate("run.metrics.f1 > 0.5", {"run": v1.GateRun(run_id="r", metrics={"f1": 0.9})}, 7)
    result = await check(
        v1.ModelCreated(model="m"),
        v1.VersionRegistered(model="m", version=1, run_id="r", evidence=run, policy_evidence=[run]),
        moved(),
        moved(evidence(), evidence("true")),
        moved(evidence(), evidence(FALSE), refused=True),
        scheduled,
    )
    assert (result.position, result.events, result.evidence, result.done) == (6, 4, 7, True)
    assert list(result.unfounded) == []


@pytest.mark.parametrize(
    ("payload", "about_evidence"),
    [
        (moved(forged(passed=True)), True),
        (moved(evidence(), forged(passed=True)), True),
        (moved(forged(passed=False), refused=True), True),
        (moved(evidence(FALSE)), False),
        (moved(evidence(), refused=True), False),
        (moved(evidence(version=3)), False),
    ],
    ids=str,
)
async def test_unfounded_decision_is_found(payload: v1.AliasMoved, about_evidence: bool) -> None:
    (found,) = (await check(v1.ModelCreated(model="m"), payload)).unfounded
    assert (found.position, found.type, found.model, found.alias) == (2, type(payload).__name__, "m", "champion")
    assert found.HasField("recorded") == found.HasField("computed") == about_evidence
    if about_evidence:
        assert found.recorded in payload.evidence
        assert found.computed.passed != found.recorded.passed


async def test_large_result_is_paged() -> None:
    log = MemoryStore("registry", registry.EVENTS)
    large = forged(passed=True)
    large.detail = "x" * 900_000
    for _ in range(3):
        await log.append([NewEvent("model/m", moved(large), Metadata("Ann"), key := new_id(), key)])
    parts = [await proofs.check(log, after) for after in (0, 1, 2)]
    assert [part.position for part in parts] == [2, 3, 3]
    assert [(len(part.unfounded), part.done) for part in parts] == [(2, False), (2, True), (1, True)]


def test_decisions_of_running_system_are_recomputed(system: Up, cli: Cli) -> None:
    before = system.heads()["registry"]
    model, _ = new_scored_model(system, 0.8, 0.9)
    policy = v1.Policy(name=f"p-{model}", models=model, aliases="champion", gate=BETTER)
    system.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    gate = v1.SetRegistrationGateRequest(model=model, expression="run.metrics.f1 > 0.5")
    system.registry.SetRegistrationGate(gate, timeout=SECONDS)
    system.registry.RegisterVersion(
        register_request(model, new_run(system, f1=0.7)), metadata=headers_at_head(system), timeout=SECONDS
    )
    for version in (1, 2):
        system.registry.MoveAlias(move_request(model, version), metadata=headers_at_head(system), timeout=SECONDS)
    system.refused(system.registry.MoveAlias, move_request(model, 3), headers_at_head(system), recorded=1)
    system.policies.RemovePolicy(v1.RemovePolicyRequest(name=policy.name), timeout=SECONDS)
    with rf.Client(system.address, actor="Ann") as client:
        result = client.policies.check_evidence(after=before)
    assert (result.events, result.evidence, result.done) == (4, 4, True)
    assert list(result.unfounded) == []
    assert answer(cli("audit", "recompute", "--after", str(before), "-o", "json"))["evidence"] == 4
    assert "4 gate results" in done(cli("audit", "recompute", "--after", str(before)))
    ahead = v1.CheckEvidenceRequest(after=system.heads()["registry"] + 1)
    assert system.refused(system.policies.CheckEvidence, ahead).reason == "POSITION_AHEAD"
