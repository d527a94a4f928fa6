"""The fixtures of the checker's own tests."""

from __future__ import annotations

import pytest

from tests.histories.recorded.scenario import Scenario, full_scenario


@pytest.fixture
def scenario() -> Scenario:
    """Return a valid history with every kind of operation."""
    return full_scenario()
