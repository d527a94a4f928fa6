"""Trying gates on existing versions and past moves, without writing anything."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rollforward import v1
from services.registry.gates.expression import recompute
from tests.integration.registry.scored_models import BETTER, headers_at_head, new_scored_model
from tests.integration.up import SECONDS, Up


@pytest.fixture
def policies(system: Up) -> v1.PolicyServiceStub:
    """Return the stub of the policy service."""
    return v1.PolicyServiceStub(system.channel)


def test_gate_is_tried_on_versions(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, runs = new_scored_model(system, 0.4, 0.6, 0.8)
    system.move(model, 2)
    heads = system.heads()

    def try_gate(**values: object) -> list[v1.GateEvidence]:
        request = v1.TestGateRequest(model=model, **values)  # type: ignore[arg-type]
        return list(policies.TestGate(request, metadata=headers_at_head(system), timeout=SECONDS).evidence)

    all_results = try_gate(expression="run.metrics.f1 > 0.5")
    assert [(result.run.run_id, result.run.version, result.passed) for result in all_results] == [
        (runs[2], 3, True),
        (runs[1], 2, True),
        (runs[0], 1, False),
    ]
    move_results = try_gate(expression=BETTER, versions=[1, 3], alias="staging")
    assert [(result.run.version, result.passed) for result in move_results] == [(1, False), (3, True)]
    assert all(
        result.others["champion"].version == 2 and result.others["current"].version == 0 for result in move_results
    )
    assert all(map(recompute, all_results + move_results))
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
def test_invalid_trial_is_rejected(
    system: Up, model: str, policies: v1.PolicyServiceStub, values: Mapping[str, object], reason: str
) -> None:
    request = v1.TestGateRequest(**{"model": model, **values})  # type: ignore[arg-type]
    assert system.refused(policies.TestGate, request, headers_at_head(system)).reason == reason


def test_gate_is_tried_on_past_moves(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = new_scored_model(system, 0.6, 0.5, 0.7)
    moves = [system.move(model, version) for version in (1, 2, 3)]
    system.move(model, 2, "challenger")
    heads = system.heads()
    request = v1.ReplayGateRequest(expression=BETTER, models=model, page_size=2)
    first = policies.ReplayGate(request, metadata=headers_at_head(system), timeout=SECONDS)
    request.page_token = first.next_page_token
    second = policies.ReplayGate(request, metadata=headers_at_head(system), timeout=SECONDS)
    replayed = [*first.moves, *second.moves]
    assert (len(first.moves), second.next_page_token) == (2, "")
    assert [(move.alias, move.from_version, move.to_version, move.evidence.passed) for move in replayed] == [
        ("champion", 0, 1, True),
        ("champion", 1, 2, False),
        ("champion", 2, 3, True),
        ("challenger", 0, 2, False),
    ]
    assert [move.revision for move in replayed[:3]] == [move.alias.revision for move in moves]
    assert [move.evidence.others["champion"].version for move in replayed] == [0, 1, 2, 3]
    assert all(recompute(move.evidence) for move in replayed)
    assert system.heads() == heads


def test_past_moves_are_filtered_by_alias_and_time(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = new_scored_model(system, 0.6, 0.5)
    system.move(model, 1)
    system.move(model, 1, "challenger")
    since = system.move(model, 2).alias.moved_at

    def replayed_moves(**values: object) -> list[tuple[str, int]]:
        request = v1.ReplayGateRequest(expression="true", models=f"{model[:-1]}?", **values)  # type: ignore[arg-type]
        response = policies.ReplayGate(request, metadata=headers_at_head(system), timeout=SECONDS)
        return [(move.alias, move.to_version) for move in response.moves]

    assert replayed_moves() == [("champion", 1), ("challenger", 1), ("champion", 2)]
    assert replayed_moves(aliases="champ*") == [("champion", 1), ("champion", 2)]
    assert replayed_moves(since=since) == [("champion", 2)]
    assert replayed_moves(aliases="nothing") == []


def test_token_of_other_replay_is_rejected(system: Up, policies: v1.PolicyServiceStub) -> None:
    model, _ = new_scored_model(system, 0.6, 0.5)
    for version in (1, 2):
        system.move(model, version)
    request = v1.ReplayGateRequest(expression="true", models=model, page_size=1)
    request.page_token = policies.ReplayGate(request, metadata=headers_at_head(system), timeout=SECONDS).next_page_token
    request.models = "*"
    assert system.refused(policies.ReplayGate, request, headers_at_head(system)).reason == "INVALID_PAGE"
    other = v1.ReplayGateRequest(expression="run.metrics.f1 > 0.5")
    assert system.refused(policies.ReplayGate, other, headers_at_head(system)).reason == "INVALID_GATE"
