"""What the checker's own tests begin with."""

from __future__ import annotations

import pytest

from tests.histories.recorded.story import Story, eventful


@pytest.fixture
def story() -> Story:
    """A good history with everything in it that may happen."""
    return eventful()
