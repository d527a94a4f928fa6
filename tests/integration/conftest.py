"""What the integration tests share: one system, as `up` runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.up import Up, up


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running system; each test takes models, runs and pods of its own."""
    with up(tmp_path_factory.mktemp("up") / "data") as services:
        yield services
        assert services.program.terminate() == 0
        assert "internal error" not in services.program.errors


@pytest.fixture
def model(system: Up) -> str:
    """A model with two versions."""
    return system.new_model()
