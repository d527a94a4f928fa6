"""What gates say of what is there, and would have said of what was done; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rollforward import v1
from services.registry.gates.expression import recompute
from tests.integration.registry.scored import BETTER, scored, seen
from tests.integration.up import SECONDS, Up


@pytest.fixture
def policies(system: Up) -> v1.PolicyServiceStub:
    """The service's stub."""
    return v1.PolicyServiceStub(system.channel)


def test_a_gate_is_tried_on_versions(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, runs = scored(system, 0.4, 0.6, 0.8)
    system.move(model, 2)
    heads = system.heads()

    def answers(**values: object) -> list[v1.GateEvidence]:
        request = v1.TestGateRequest(model=model, **values)  # type: ignore[arg-type]
        return list(policies.TestGate(request, metadata=seen(system), timeout=SECONDS).evidence)

    every = answers(expression="run.metrics.f1 > 0.5")
    assert [(one.run.run_id, one.run.version, one.passed) for one in every] == [
        (runs[2], 3, True),
        (runs[1], 2, True),
        (runs[0], 1, False),
    ]
    some = answers(expression=BETTER, versions=[1, 3], alias="staging")
    assert [(one.run.version, one.passed) for one in some] == [(1, False), (3, True)]
    assert all(one.others["champion"].version == 2 and one.others["current"].version == 0 for one in some)
    assert all(map(recompute, every + some))
    assert system.heads() == heads


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"expression": "1"}, "INVALID_GATE"),
        ({"expression": "run.metrics.f1 > 0.5", "alias": "champion"}, "INVALID_GATE"),
        ({"expression": "true", "alias": "v1"}, "INVALID_ALIAS"),
        ({"expression": "true", "versions": [9]}, "VERSION_NOT_FOUND"),
        ({"expression": "true", "model": "none"}, "MODEL_NOT_FOUND"),
    ],
    ids=str,
)
def test_a_gate_is_tried_on_nothing(
    system: Up, model: str, policies: v1.PolicyServiceStub, values: Mapping[str, object], reason: str
) -> None:
    request = v1.TestGateRequest(**{"model": model, **values})  # type: ignore[arg-type]
    assert system.refused(policies.TestGate, request, seen(system)).reason == reason


def test_a_gate_is_tried_on_past_moves(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = scored(system, 0.6, 0.5, 0.7)
    moves = [system.move(model, version) for version in (1, 2, 3)]
    system.move(model, 2, "challenger")
    heads = system.heads()
    request = v1.ReplayGateRequest(expression=BETTER, models=model, page_size=2)
    first = policies.ReplayGate(request, metadata=seen(system), timeout=SECONDS)
    request.page_token = first.next_page_token
    second = policies.ReplayGate(request, metadata=seen(system), timeout=SECONDS)
    found = [*first.moves, *second.moves]
    assert (len(first.moves), second.next_page_token) == (2, "")
    assert [(one.alias, one.from_version, one.to_version, one.evidence.passed) for one in found] == [
        ("champion", 0, 1, True),
        ("champion", 1, 2, False),
        ("champion", 2, 3, True),
        ("challenger", 0, 2, False),
    ]
    assert [one.revision for one in found[:3]] == [move.alias.revision for move in moves]
    assert [one.evidence.others["champion"].version for one in found] == [0, 1, 2, 3]
    assert all(recompute(one.evidence) for one in found)
    assert system.heads() == heads


def test_a_gate_is_tried_on_past_moves_by_alias_and_time(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = scored(system, 0.6, 0.5)
    system.move(model, 1)
    system.move(model, 1, "challenger")
    since = system.move(model, 2).alias.moved_at

    def found(**values: object) -> list[tuple[str, int]]:
        request = v1.ReplayGateRequest(expression="true", models=f"{model[:-1]}?", **values)  # type: ignore[arg-type]
        answer = policies.ReplayGate(request, metadata=seen(system), timeout=SECONDS)
        return [(move.alias, move.to_version) for move in answer.moves]

    assert found() == [("champion", 1), ("challenger", 1), ("champion", 2)]
    assert found(aliases="champ*") == [("champion", 1), ("champion", 2)]
    assert found(since=since) == [("champion", 2)]
    assert found(aliases="nothing") == []


def test_a_gate_is_tried_on_past_moves_with_another_questions_token(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = scored(system, 0.6, 0.5)
    for version in (1, 2):
        system.move(model, version)
    request = v1.ReplayGateRequest(expression="true", models=model, page_size=1)
    request.page_token = policies.ReplayGate(request, metadata=seen(system), timeout=SECONDS).next_page_token
    request.models = "*"
    assert system.refused(policies.ReplayGate, request, seen(system)).reason == "INVALID_PAGE"
    other = v1.ReplayGateRequest(expression="run.metrics.f1 > 0.5")
    assert system.refused(policies.ReplayGate, other, seen(system)).reason == "INVALID_GATE"
