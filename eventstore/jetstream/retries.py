"""Retries of requests to JetStream, for as long as a server may need to restart or a cluster to choose a leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.errors
from nats.js.errors import APIError, NoStreamResponseError, ServerError, ServiceUnavailableError

from eventstore.concurrency.backoff import pause_after
from eventstore.errors import StoreUnavailable
from eventstore.jetstream.appending.publishing import AnswerLost
from eventstore.jetstream.error_messages import describe

T = TypeVar("T")

RETRY_SECONDS = 12.0

_TOO_MANY_BATCHES = 429
_INCOMPLETE_BATCH = 10176  # the connection was lost between the messages of a batch: nothing of it is stored

_TEMPORARY = (
    AnswerLost,
    TimeoutError,
    nats.errors.NoRespondersError,
    NoStreamResponseError,
    ServiceUnavailableError,
    ServerError,
)


class Retries:
    """Repeats requests about a log.

    Args:
        log: The log's name.
        explain: Returns what is known to be wrong with the servers; empty when nothing is.
    """

    def __init__(self, log: str, explain: Callable[[], str]) -> None:
        self._log = log
        self._explain = explain

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a request until it is answered, and return the answer.

        Raises:
            StoreUnavailable: It was refused for good, or not answered within `RETRY_SECONDS`.
        """
        deadline = time.monotonic() + RETRY_SECONDS
        failures = 0
        while True:
            try:
                return await attempt()
            except (AnswerLost, TimeoutError, nats.errors.Error) as error:
                failures += 1
                if not _is_temporary(error) or time.monotonic() > deadline:
                    why = self._explain() or describe(error)
                    raise StoreUnavailable(f"the {self._log} log does not respond: {why}") from error
                await asyncio.sleep(pause_after(failures))


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, APIError) and (error.code == _TOO_MANY_BATCHES or error.err_code == _INCOMPLETE_BATCH):
        return True
    return isinstance(error, _TEMPORARY)
