"""The coalescer: which requests wait for which, and that none waits forever."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.jetstream.appending import coalescing
from eventstore.jetstream.appending.coalescing import Coalescer
from tests.timeouts import scaled


@pytest.fixture(autouse=True)
def _long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "TIMEOUT_SECONDS", 60.0)


class Requests:
    """Requests through one coalescer, answered by the test."""

    def __init__(self) -> None:
        self.coalescer = Coalescer()
        self.sent: list[str] = []
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sent_changed = asyncio.Event()

    async def ask(self, *names: str) -> None:
        """Start requests and run them until they wait."""
        for name in names:
            self._answers[name] = asyncio.get_running_loop().create_future()
            self._tasks[name] = asyncio.create_task(self._request(name))
        await self._settle()

    async def until_sent(self, *names: str) -> None:
        """Wait until exactly these requests were sent."""
        while self.sent != list(names):
            self._sent_changed.clear()
            await self._sent_changed.wait()

    async def answer(self, name: str, error: Exception | None = None) -> None:
        """Answer a request, or make it fail."""
        if error:
            self._answers[name].set_exception(error)
        else:
            self._answers[name].set_result(None)
        await self._settle()

    async def cancel(self, name: str) -> None:
        """Cancel a request."""
        self._tasks[name].cancel()
        await self._settle()

    async def end(self) -> None:
        """Answer all open requests; fail if some were never sent."""
        while left := [name for name, task in self._tasks.items() if not task.done()]:
            waiting = [name for name in left if name in self.sent and not self._answers[name].done()]
            assert waiting, f"never sent: {left}"
            for name in waiting:
                self._answers[name].set_result(None)
            await self._settle()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _request(self, name: str) -> None:
        async with self.coalescer:
            self.sent.append(name)
            self._sent_changed.set()
            await self._answers[name]

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_single_request_is_sent_at_once() -> None:
    requests = Requests()
    for name in "abc":
        await requests.ask(name)
        assert requests.sent[-1] == name
        await requests.answer(name)
    await requests.end()


async def test_requests_that_arrive_meanwhile_are_sent_together() -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    assert requests.sent == ["a"]
    await requests.answer("a")
    assert requests.sent == ["a", "b", "c"]
    await requests.end()


async def test_next_requests_are_sent_on_first_answer() -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    await requests.answer("a")
    await requests.ask("d")
    assert "d" not in requests.sent
    await requests.answer("c")
    assert "d" in requests.sent
    await requests.end()


async def test_failure_releases_waiting_requests() -> None:
    requests = Requests()
    await requests.ask("a", "b")
    await requests.answer("a", TimeoutError())
    assert requests.sent == ["a", "b"]
    await requests.end()


@pytest.mark.parametrize("cancelled", ["a", "b"])
async def test_cancelled_request_does_not_block_others(cancelled: str) -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    await requests.cancel(cancelled)
    await requests.end()
    assert set(requests.sent) >= {"a", "c"}


async def test_missing_answer_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "TIMEOUT_SECONDS", 0.01)
    requests = Requests()
    await requests.ask("lost", "b", "c")
    async with asyncio.timeout(scaled(10)):
        await requests.until_sent("lost", "b", "c")
    await requests.ask("d")
    assert "d" in requests.sent
    await requests.end()
