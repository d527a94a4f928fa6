"""Requests that MLflow's own server answered are answered alike: by status, error code and body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.up import up
from tests.mlflow_rest.explained import EXPLAINED, alike, named
from tests.mlflow_rest.play import Answer, play
from tests.mlflow_rest.steps.all_steps import all_steps
from tests.timeouts import scaled

RECORDED = Path(__file__).with_name("recorded.json")


@pytest.fixture(scope="module")
def recorded() -> list[Any]:
    answers: list[Any] = json.loads(RECORDED.read_text())["answers"]
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Answer]]:
    with up(tmp_path_factory.mktemp("mlflow") / "data") as services:
        yield play(services.http, all_steps())
        assert "internal error" not in services.program.errors
        assert "Traceback" not in services.program.errors


@pytest.mark.timeout(scaled(240))
@pytest.mark.xdist_group("mlflow replay")
def test_at_least_700_requests_are_answered_like_mlflow(recorded: list[Any], answers: list[Answer]) -> None:
    steps = all_steps()
    assert len(steps) == len(recorded) == len(answers)
    different = [
        f"{named(step)[:300]}\n  MLflow: {str(theirs)[:500]}\n  ours:   {str(tuple(ours))[:500]}"
        for step, theirs, ours in zip(steps, recorded, answers, strict=True)
        if alike(*theirs) != alike(*ours) and named(step) not in EXPLAINED
    ]
    assert not different, f"{len(different)} of {len(steps)}:\n" + "\n".join(different)
    assert len(steps) - len(EXPLAINED) >= 700


@pytest.mark.timeout(scaled(240))
@pytest.mark.xdist_group("mlflow replay")
def test_every_explained_difference_is_one(recorded: list[Any], answers: list[Answer]) -> None:
    different = {
        named(step)
        for step, theirs, ours in zip(all_steps(), recorded, answers, strict=True)
        if alike(*theirs) != alike(*ours)
    }
    assert set(EXPLAINED) == different
