"""A few recorded histories, each with harm done to the services and to NATS, keep every promise.

`python -m tests.histories` records hundreds. ROLLFORWARD_HISTORY_SEED is another first seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories.checker import check
from tests.histories.run import Recorder
from tests.histories.system import SHAPES

pytestmark = pytest.mark.busy

FIRST = int(os.environ.get("ROLLFORWARD_HISTORY_SEED", "1"))
SEEDS = range(FIRST, FIRST + 5)


@pytest.fixture(scope="module", params=SHAPES)
def recorder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Records on one system after the other."""
    with SHAPES[request.param](tmp_path_factory.mktemp("system")) as system:
        yield Recorder(system)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_keeps_every_promise(recorder: Recorder, seed: int, tmp_path: Path) -> None:
    history = recorder.record(seed)
    history.write(tmp_path / "history.jsonl")
    violations = check(history)
    assert not violations, "\n".join([f"{tmp_path}, {history.faults}", *map(str, violations)])
    assert len({operation.client for operation in history.operations if operation.moved}) > 1
    assert len(history.streams) > len({stream.watcher for stream in history.streams})
