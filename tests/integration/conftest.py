"""Fixtures of the integration tests: one running system and its clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rollforward as rf
from tests.integration.cli.command_line import Cli, SampleData, program
from tests.integration.up import Up, new_id, up


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run one system for the session; each test uses its own models, runs and pods."""
    with up(tmp_path_factory.mktemp("up") / "data") as services:
        yield services
        assert services.program.terminate() == 0
        assert "internal error" not in services.program.errors


@pytest.fixture
def model(system: Up) -> str:
    """Create a model with two versions."""
    return system.new_model()


@pytest.fixture(scope="module")
def cli(system: Up) -> Cli:
    """Return a function that runs the command line against the system."""
    return program(system.address)


@pytest.fixture(scope="module")
def sample(system: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleData]:
    """Log an experiment and a model with the SDK, as a training job does."""
    files = tmp_path_factory.mktemp("model")
    (files / "weights.bin").write_bytes(bytes(range(256)) * 8192)
    (files / "labels.json").write_text('["good", "bad"]')
    experiment, model = f"experiment-{new_id()}", f"model-{new_id()}"
    with rf.Client(system.address, actor="Zoë") as client:
        ids = []
        for name, accuracy in (("first", 0.96), ("second", 0.99)):
            with client.runs.start(experiment, name=name, tags={"team": "é"}) as run:
                run.log_params({"depth": 3, "name": name})
                for step in range(3):
                    run.log_metric("accuracy", accuracy - 0.01 * (2 - step), step)
                run.log_metric("loss", float("nan"))
                run.log_artifacts(files, "model")
            client.versions.register(model, run, artifact="model")
            ids.append(run.run_id)
        yield SampleData(experiment, (ids[0], ids[1]), model, files)


@pytest.fixture
def alias(sample: SampleData) -> str:
    """Return an alias that is not set yet."""
    return f"{sample.model}@a{new_id()}"
