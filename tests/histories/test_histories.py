"""A few recorded histories of each shape, with faults, break no rule.

`make histories` records hundreds. ROLLFORWARD_HISTORY_SEED is another first seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories.checks.checker import check
from tests.histories.recorded.storage import write
from tests.histories.run import Recorder
from tests.histories.systems.faults import FAULTS, draw
from tests.histories.systems.shapes import SHAPES
from tests.histories.systems.system import System

pytestmark = pytest.mark.busy

FIRST = int(os.environ.get("ROLLFORWARD_HISTORY_SEED", "1"))
SEEDS = range(FIRST, FIRST + 2)


@pytest.fixture(scope="module", params=SHAPES)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Yield one system after the other."""
    with SHAPES[request.param](tmp_path_factory.mktemp("system")) as system:
        yield system


@pytest.mark.parametrize("seed", SEEDS)
def test_history_breaks_no_rule(system: System, seed: int, tmp_path: Path) -> None:
    history = Recorder(system).record(seed, draw(seed, seed, list(FAULTS), system))
    write(history, tmp_path / "history.jsonl")
    violations = check(history)
    assert not violations, "\n".join([f"{tmp_path}, {history.faults}", *map(str, violations)])
    assert len({operation.client for operation in history.operations if operation.moved}) > 1
    assert len(history.streams) > len({stream.watcher for stream in history.streams})
    assert history.deliveries
    assert history.rebuilds
