"""Readiness of a process: its logs take writes, its rows follow their logs, its database answers.

A log is asked by a message that its stream refuses: who answers that can still write, as far as it knows, while
STREAM.INFO and direct gets are answered by a server without a quorum, too. The last append's failure counts besides,
because a full disk shows only when something is written.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog

from eventstore import Projector, StoreUnavailable, Tail, end

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0
BEHIND_SECONDS = 5.0

_logger = structlog.get_logger(__name__)


Check = Callable[[], Awaitable[None]]


class Log(Protocol):
    """A log that can be asked whether it takes writes."""

    @property
    def log(self) -> str:
        """Its name."""

    async def check_writable(self) -> None:
        """Raise `StoreUnavailable` when it takes no writes."""


class Readiness:
    """The periodic checks of the logs and projections of a process.

    Args:
        logs: The logs.
        tails: By the log's name, what follows it.
        projectors: The projections, by name.

    Attributes:
        problems: What is wrong, by its subject: "log NAME" takes no writes, "tail NAME" or "projection NAME" does not
            follow its log.
    """

    def __init__(
        self,
        logs: Sequence[Log],
        tails: Mapping[str, Tail],
        projectors: Mapping[str, Projector],
    ) -> None:
        self.problems: Mapping[str, str] = {}
        self._logs = logs
        self._tails = tails
        self.projectors = projectors
        self._changed: Callable[[Mapping[str, str]], Awaitable[None]] = _ignore
        self._heads: dict[str, deque[tuple[float, int]]] = {log: deque() for log in tails}
        self._checks: dict[str, asyncio.Task[str]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def logs(self) -> Sequence[str]:
        """The names of the logs."""
        return [log.log for log in self._logs]

    @property
    def failed(self) -> list[str]:
        """The projections that cannot go on."""
        return [name for name, projector in self.projectors.items() if projector.failure]

    async def start(self, changed: Callable[[Mapping[str, str]], Awaitable[None]]) -> None:
        """Start to look.

        Args:
            changed: Is called with the problems whenever they change.
        """
        self._changed = changed
        self._task = asyncio.create_task(self._run(), name="readiness")

    async def stop(self) -> None:
        """Stop looking."""
        await end(self._task)
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)

    def problem_of(self, projection: str) -> str:
        """Return why a projection's rows do not follow their log; empty if they do."""
        return self.problems.get(f"projection {projection}", "")

    async def _run(self) -> None:
        while True:
            problems = await self._look()
            if problems != self.problems:
                await self._tell(problems)
            await asyncio.sleep(LOOK_SECONDS)

    async def _tell(self, problems: Mapping[str, str]) -> None:
        before, self.problems = self.problems, problems
        if problems.keys() != before.keys():
            if problems:
                _logger.warning("not ready", problems=list(problems.values()))
            else:
                _logger.info("ready")
        await self._changed(problems)

    async def _look(self) -> Mapping[str, str]:
        checks: dict[str, tuple[str, Check]] = {}
        checks |= {f"log {log.log}": (f"log-{log.log}", log.check_writable) for log in self._logs}
        checks |= {f"projection {name}": (name, projector.check) for name, projector in self.projectors.items()}
        subjects = list(checks)
        *results, _ = await asyncio.gather(
            *(self._answer(name, check) for name, check in checks.values()), self._note_heads()
        )
        problems = dict(zip(subjects, results, strict=True))
        problems |= {f"tail {log}": self._why_not_followed(tail) for log, tail in self._tails.items()}
        for name, projector in self.projectors.items():
            problems[f"projection {name}"] = (
                projector.why_failed or problems[f"projection {name}"] or self._why_behind(projector)
            )
        return {subject: problem for subject, problem in problems.items() if problem}

    async def _answer(self, name: str, check: Check) -> str:
        """Return what a check found, empty when all is well; one that still runs is not begun again."""
        task = self._checks.get(name)
        if task is None or task.done():
            task = self._checks[name] = asyncio.create_task(_result(check), name=f"check-{name}")
        await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        return task.result() if task.done() else f"{name} does not answer within {ANSWER_SECONDS:g} s"

    async def _note_heads(self) -> None:
        """Note the heads of the logs, read from the logs themselves: a tail can be cut off without notice."""
        now = time.monotonic()
        tails = self._tails.values()
        for tail, head in zip(tails, await asyncio.gather(*map(_head, tails)), strict=True):
            heads = self._heads[tail.store.log]
            if head is not None:
                heads.append((now, head))
            while len(heads) > 1 and heads[1][0] <= now - BEHIND_SECONDS:
                heads.popleft()

    def _why_not_followed(self, tail: Tail) -> str:
        if (due := self._due(tail.store.log)) <= tail.position:
            return ""
        return f"the {tail.store.log} log is not followed: received position {tail.position} of {due}"

    def _why_behind(self, projector: Projector) -> str:
        if (due := self._due(projector.store.log)) <= projector.position:
            return ""
        return f"projection {projector.name} is behind: at position {projector.position} of {due}"

    def _due(self, log: str) -> int:
        """Return the position that whoever follows a log must have reached by now."""
        since, head = next(iter(self._heads[log]), (0.0, 0))
        return head if time.monotonic() - since >= BEHIND_SECONDS else 0


async def _head(tail: Tail) -> int | None:
    """Return the position of the last event that a log's followers can reach; None when the log does not answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await tail.store.head()
            # What was erased at the end is never reached; `last` moves a whole event, so it is asked only then.
            return head if head <= tail.position else await tail.store.last()
    except (StoreUnavailable, TimeoutError):
        return None  # the log's own check says so


async def _ignore(_: Mapping[str, str]) -> None:
    """Do nothing."""


async def _result(check: Check) -> str:
    try:
        await check()
    except StoreUnavailable as error:
        return str(error)
    return ""
