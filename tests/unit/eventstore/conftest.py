"""A log of accounts, and two processes that handle commands on it."""

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
    Nothing,
    SlowMemory,
)


@pytest.fixture
def store() -> SlowMemory:
    return SlowMemory()


@pytest.fixture
async def projector(store: SlowMemory, tmp_path: Path) -> AsyncIterator[Projector]:
    tail = Tail(store)
    await tail.start()
    projector = Projector(tail, Nothing(), Database(str(tmp_path)))
    await projector.start()
    yield projector
    await projector.stop()
    await tail.stop()


@pytest.fixture
def handler(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    return CommandHandler(store, ACCOUNT, projector)


@pytest.fixture
def other(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    """The handler of another process, with a cache of its own."""
    return CommandHandler(store, ACCOUNT, projector)
