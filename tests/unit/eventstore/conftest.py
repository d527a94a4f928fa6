"""Fixtures: a log of accounts, and the command handlers of two processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstore.commands.handler import CommandHandler
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from tests.unit.eventstore.accounts import (
    ACCOUNT,
    EmptyProjection,
    SlowMemory,
)


@pytest.fixture
def store() -> SlowMemory:
    return SlowMemory()


@pytest.fixture
async def projector(store: SlowMemory, tmp_path: Path) -> AsyncIterator[Projector]:
    tail = Tail(store)
    await tail.start()
    projector = Projector(tail, EmptyProjection(), Database(str(tmp_path)))
    await projector.start()
    yield projector
    await projector.stop()
    await tail.stop()


@pytest.fixture
def handler(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    return CommandHandler(store, ACCOUNT, projector)


@pytest.fixture
def other(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    """Return the handler of another process, with its own cache."""
    return CommandHandler(store, ACCOUNT, projector)
