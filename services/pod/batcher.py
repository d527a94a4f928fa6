"""One version's lane: a bounded queue before the one thread that predicts, batching whatever waited meanwhile."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = tuple[str, ...]
Answers = dict[str, NDArray[Any]]
Predict = Callable[[NDArray[Any], Outputs], Answers]

QUEUE_LIMIT = 1024  # requests that wait
BATCH_ROWS = 1024


class QueueFull(Exception):
    """More requests wait for this version than it can take."""


class DeadlinePassed(Exception):
    """The caller's deadline passed before the prediction began."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    rows: NDArray[Any]
    outputs: Outputs
    deadline: float | None  # of the loop's clock
    answer: asyncio.Future[Answers] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def joins(self, other: "_Job") -> bool:
        """Return whether both can be predicted in one call."""
        mine, theirs = self.rows, other.rows
        return (mine.dtype, mine.shape[1:], self.outputs) == (theirs.dtype, theirs.shape[1:], other.outputs)


class Batcher:
    """Runs `predict` for one request, or for several joined by rows, never twice at once.

    One thread, because two of them in Python halve the throughput. No timer: a batch is what queued up while the
    batch before it ran, so a lone request waits for nothing.
    """

    def __init__(self, predict: Predict, *, queue_limit: int = QUEUE_LIMIT, batch_rows: int = BATCH_ROWS) -> None:
        self._predict = predict
        self._queue_limit = queue_limit
        self._batch_rows = batch_rows
        self._queue: deque[_Job] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="predict")

    async def submit(self, rows: NDArray[Any], outputs: Outputs, deadline: float | None = None) -> Answers:
        """Predict; `deadline` is a time of the loop's clock.

        Raises QueueFull, DeadlinePassed and what `predict` raises.
        """
        if len(self._queue) >= self._queue_limit:
            raise QueueFull
        job = _Job(rows, outputs, deadline)
        self._queue.append(job)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await job.answer

    async def close(self) -> None:
        """Answer all that was submitted, then end the thread."""
        while self._runner is not None:
            await asyncio.wait([self._runner])
        self._executor.shutdown(wait=False)

    async def _run(self) -> None:
        while self._queue:
            await self._answer(self._take())
        self._runner = None

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        rows = 0
        while self._queue and (not batch or self._fits(batch[0], rows)):
            job = self._queue.popleft()
            if _is_wanted(job):
                batch.append(job)
                rows += len(job.rows)
        return batch

    def _fits(self, first: _Job, rows: int) -> bool:
        return first.joins(self._queue[0]) and rows + len(self._queue[0].rows) <= self._batch_rows

    async def _answer(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        try:
            rows = batch[0].rows if len(batch) == 1 else np.concatenate([job.rows for job in batch])
            answers = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._predict, rows, batch[0].outputs
            )
        except Exception as error:  # noqa: BLE001 - it is the caller's, who awaits the answer
            await self._blame(batch, error)
        else:
            _share(batch, answers)

    async def _blame(self, batch: Sequence[_Job], error: Exception) -> None:
        """Hand the error to the one request that caused it: of several, each is tried alone."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for job in batch:
            await self._answer([job])


def _is_wanted(job: _Job) -> bool:
    """Return whether a caller still waits; an expired request is failed here."""
    if job.answer.done():
        return False
    if job.deadline is None or asyncio.get_running_loop().time() < job.deadline:
        return True
    job.answer.set_exception(DeadlinePassed())
    return False


def _share(batch: Sequence[_Job], answers: Answers) -> None:
    start = 0
    for job in batch:
        end = start + len(job.rows)
        if not job.answer.done():
            job.answer.set_result({name: array[start:end] for name, array in answers.items()})
        start = end
