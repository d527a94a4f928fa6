"""What the checker's own tests begin with."""

from __future__ import annotations

import pytest

from tests.histories.recorded.story import Story, eventful


@pytest.fixture
def story() -> Story:
    """Return a valid history with every kind of operation."""
    return eventful()
