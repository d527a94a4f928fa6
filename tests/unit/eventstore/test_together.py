"""Requests that go out together: who waits, for whom, and that nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.jetstream.appending import coalescing
from eventstore.jetstream.appending.coalescing import Coalescer
from tests.timeouts import scaled


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "TIMEOUT_SECONDS", 60.0)


class Requests:
    """Requests through one gate, answered by hand."""

    def __init__(self) -> None:
        self.together = Coalescer()
        self.sent: list[str] = []
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def ask(self, *names: str) -> None:
        """Begins requests, and lets all run that can."""
        for name in names:
            self._answers[name] = asyncio.get_running_loop().create_future()
            self._tasks[name] = asyncio.create_task(self._request(name))
        await self._settle()

    async def until_sent(self, *names: str) -> None:
        """Waits until these, and no others, were sent."""
        while self.sent != list(names):
            self._news.clear()
            await self._news.wait()

    async def answer(self, name: str, error: Exception | None = None) -> None:
        """Has a request answered, or fail."""
        if error:
            self._answers[name].set_exception(error)
        else:
            self._answers[name].set_result(None)
        await self._settle()

    async def cancel(self, name: str) -> None:
        """Calls a request off."""
        self._tasks[name].cancel()
        await self._settle()

    async def end(self) -> None:
        """Answers what is still asked; fails if that does not end it all."""
        while left := [name for name, task in self._tasks.items() if not task.done()]:
            waiting = [name for name in left if name in self.sent and not self._answers[name].done()]
            assert waiting, f"nobody will ever send {left}"
            for name in waiting:
                self._answers[name].set_result(None)
            await self._settle()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _request(self, name: str) -> None:
        async with self.together:
            self.sent.append(name)
            self._news.set()
            await self._answers[name]

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_who_is_alone_does_not_wait() -> None:
    requests = Requests()
    for name in "abc":
        await requests.ask(name)
        assert requests.sent[-1] == name
        await requests.answer(name)
    await requests.end()


async def test_who_comes_while_an_answer_is_awaited_goes_with_it_all_at_a_time() -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    assert requests.sent == ["a"]
    await requests.answer("a")
    assert requests.sent == ["a", "b", "c"]
    await requests.end()


async def test_the_first_answer_of_many_lets_the_next_go() -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    await requests.answer("a")
    await requests.ask("d")
    assert "d" not in requests.sent
    await requests.answer("c")
    assert "d" in requests.sent
    await requests.end()


async def test_a_failure_is_an_answer() -> None:
    requests = Requests()
    await requests.ask("a", "b")
    await requests.answer("a", TimeoutError())
    assert requests.sent == ["a", "b"]
    await requests.end()


@pytest.mark.parametrize("left", ["a", "b"])
async def test_who_goes_away_holds_nobody_up(left: str) -> None:
    requests = Requests()
    await requests.ask("a", "b", "c")
    await requests.cancel(left)
    await requests.end()
    assert set(requests.sent) >= {"a", "c"}


async def test_an_answer_that_never_comes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "TIMEOUT_SECONDS", 0.01)
    requests = Requests()
    await requests.ask("lost", "b", "c")
    async with asyncio.timeout(scaled(10)):
        await requests.until_sent("lost", "b", "c")
    await requests.ask("d")
    assert "d" in requests.sent
    await requests.end()
