"""Limits of tags and descriptions: the same for every object, so that a run's labels fit its version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.up import SECONDS, Up, new_id

TAG = {"t": "é" * 8_000}
TOO_LONG = {"t": "é" * 8_001}


@pytest.fixture
def client(system: Up) -> Iterator[rf.Client]:
    with rf.Client(system.address) as connection:
        yield connection


def tag_setters(client: rf.Client, system: Up) -> dict[str, Callable[[dict[str, str]], object]]:
    """Return functions that set tags, by the kind of object."""
    experiment, model, run, logged = f"e-{new_id()}", f"m-{new_id()}", new_id(), f"m-{new_id()}"
    with client.runs.start(experiment, run_id=run) as created_run:
        pass
    client.logged_models.create(experiment, "logged", model_id=logged)
    client.versions.register(model, digest=system.upload())
    return {
        "run": lambda tags: client.runs.set_tags(created_run, tags),
        "experiment": lambda tags: client.experiments.set_tags(experiment, tags),
        "logged model": lambda tags: client.logged_models.set_tags(logged, tags),
        "model": lambda tags: client.models.set_tags(model, tags),
        "version": lambda tags: client.models.set_tags(model, tags, 1),
    }


def test_tags_have_same_limit_in_sdk(client: rf.Client, system: Up) -> None:
    for set_tags in tag_setters(client, system).values():
        set_tags(TAG)
        with pytest.raises(rf.InvalidRequest) as refused:
            set_tags(TOO_LONG)
        assert refused.value.reason == "INVALID_VALUE"


def test_tags_have_same_limit_in_services(system: Up) -> None:
    model, run = system.new_model(1), system.new_run()
    logged = v1.CreateLoggedModelRequest(
        experiment_id=system.new_experiment(), model_id=f"m-{new_id()}", name="m", tags=TOO_LONG
    )
    refusals: dict[str, list[tuple[Any, Any]]] = {
        "INVALID_VALUE": [
            (system.tracking.LogBatch, v1.LogBatchRequest(run_id=run, tags=TOO_LONG)),
            (system.tracking.CreateExperiment, v1.CreateExperimentRequest(name=new_id(), tags=TOO_LONG)),
            (system.logged_models.CreateLoggedModel, logged),
        ],
        "INVALID_TAG": [
            (system.registry.ChangeTags, v1.ChangeTagsRequest(model=model, set=TOO_LONG)),
            (system.registry.ChangeTags, v1.ChangeTagsRequest(model=model, version=1, set=TOO_LONG)),
        ],
    }
    for reason, calls in refusals.items():
        for method, request in calls:
            assert system.refused(method, request).reason == reason


def test_descriptions_have_same_limit(system: Up) -> None:
    model, run = system.new_model(1), system.new_run()
    long, too_long = "é" * 20_000, "é" * 20_001
    system.tracking.DescribeRun(v1.DescribeRunRequest(run_id=run, description=long), timeout=SECONDS)
    for version in (0, 1):
        request = v1.SetDescriptionRequest(model=model, version=version, description=long)
        system.registry.SetDescription(request, timeout=SECONDS)
        request.description = too_long
        assert system.refused(system.registry.SetDescription, request).reason == "INVALID_DESCRIPTION"
