"""The threads of one history: its clients, watchers and readers at work."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Protocol

from tests.e2e.program import until
from tests.histories.clients.alias_clients import AliasClient
from tests.histories.clients.namers import Namer
from tests.histories.clients.watchers import SdkWatcher, Watcher
from tests.histories.recorded.subjects import Failure
from tests.timeouts import scaled

PROGRESS_SECONDS = scaled(60.0)
WATCH_SECONDS = scaled(30.0)


class Worker(Protocol):
    """A participant that works until it is stopped."""

    def work(self, stopping: threading.Event) -> None:
        """Do one thing after another."""


class Crew:
    """Everybody who uses a system at the same time; an unexpected error is recorded as a failure."""

    def __init__(
        self,
        clients: Sequence[AliasClient],
        namers: Sequence[Namer],
        others: Sequence[Worker],
        watchers: Sequence[Watcher | SdkWatcher],
    ) -> None:
        self.failures: list[Failure] = []
        self._clients, self._namers, self._watchers = clients, namers, watchers
        self._workers: list[Worker] = [*clients, *namers, *others]
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(len(self._workers) + len(watchers))
        self._working: list[Future[None]] = []
        self._following: list[Future[None]] = []

    def __enter__(self) -> Crew:
        self._working = [
            self._start(type(worker).__name__, partial(worker.work, self._stopping)) for worker in self._workers
        ]
        self._following = [self._start(type(watcher).__name__, watcher.work) for watcher in self._watchers]
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._end_watchers()
        self._pool.shutdown()

    def progress(self, number: int) -> None:
        """Return once so many more operations were answered, or nothing more can be expected."""
        goal = self._answered() + number
        until(
            lambda: self._is_over() or self._answered() >= goal,
            f"{number} more operations are answered: {self._answered() - goal + number} were",
            PROGRESS_SECONDS,
        )

    @property
    def stuck(self) -> str:
        """Return what a client was sent if the services cannot continue; empty as long as they can."""
        reports = [*(client.stuck for client in self._clients), *(namer.stuck for namer in self._namers)]
        return next(filter(None, reports), "")

    def rest(self) -> None:
        """Let the clients end what they are doing."""
        self._stopping.set()
        wait(self._working)

    def watch_until(self, position: int) -> None:
        """Give every watcher time to come to a position, and end them; the checker tells of one that did not."""
        with suppress(AssertionError):
            until(
                lambda: bool(self.failures) or all(one.position >= position for one in self._watchers),
                "watched",
                WATCH_SECONDS,
            )
        self._end_watchers()
        wait(self._following)

    def _end_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.end()

    def _is_over(self) -> bool:
        return bool(self.failures) or bool(self.stuck)

    def _answered(self) -> int:
        return sum(len(client.operations) for client in self._clients)

    def _start(self, who: str, work: Callable[[], None]) -> Future[None]:
        def guarded() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - it is reported as the history's
                self.failures.append(Failure(who, traceback.format_exc(limit=-6)))

        return self._pool.submit(guarded)
