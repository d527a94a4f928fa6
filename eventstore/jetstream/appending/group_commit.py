"""Appends of several events that wait for each other go out together, as one atomic batch.

A server stages every atomic batch on disk of its own, one after the other: 5 to 20 ms each, whether it has 2 events
or 100 (measured with sync_interval: always; benchmarks/registry/many_writers.py). So the appends that wait while a
batch is under way share the next one. Each remains atomic by itself: when the server refuses a batch, its halves are
tried, until what is refused is alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

from nats.js import api
from nats.js.errors import APIError

from eventstore.errors import StoreUnavailable
from eventstore.jetstream.appending.publishing import Message

GROUP_EVENTS = 250
GROUP_BYTES = 4_000_000

EVENTS_BEHIND = "Rf-Events-Behind"
"""The header that says how many more events an append has."""

WRONG_LAST_SEQUENCE = 10071
DUPLICATE_IN_BATCH = 10201
WRONG_REVISION = frozenset({WRONG_LAST_SEQUENCE, 10164})
REFUSED_FOR_ONE = WRONG_REVISION | {DUPLICATE_IN_BATCH}
"""Error codes that one append brings upon its whole batch."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_END = "Nats-Expected-Last-Sequence"
"""The header that says where the log must end for an append to be accepted."""

Publish = Callable[[Sequence[Message]], Awaitable[api.PubAck]]


@dataclass(slots=True, eq=False)
class _Append:
    """An append that waits for its batch; `last` will be the position of its last event."""

    messages: Sequence[Message]
    last: asyncio.Future[int]
    sent: bool = False
    size: int = field(init=False)
    subjects: frozenset[str] = field(init=False)
    expected: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(payload) for _, payload, _ in self.messages)
        self.subjects = frozenset(subject for subject, _, _ in self.messages)
        self.expected = {
            subject: int(headers[EXPECTED]) for subject, _, headers in self.messages if EXPECTED in headers
        }

    def fail(self, error: Exception) -> None:
        """Give the error to whoever still waits."""
        if not self.last.done():
            self.last.set_exception(error)


class GroupCommit:
    """Writes appends of several events to one stream, one batch at a time.

    Args:
        publish: Sends the messages of a batch and waits for its acknowledgement.
        timeout: How long an append may wait for its batch, in seconds.
    """

    def __init__(self, publish: Publish, timeout: float) -> None:
        self._publish = publish
        self._timeout = timeout
        self._waiting: list[_Append] = []
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def wait_for_batch(self) -> None:
        """Return once the batch that is under way, if there is one, is answered or given up."""
        async with self._turn:
            pass

    async def append(self, messages: Sequence[Message]) -> int:
        """Write the messages of one append, all or none, and return the position of the last.

        Raises:
            StoreUnavailable: The append waited too long for its batch; nothing was written.
            AnswerLost, TimeoutError, nats.errors.Error: The batch was refused, or its answer did not come.
        """
        append = _Append(messages, asyncio.get_running_loop().create_future())
        self._waiting.append(append)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="group-commit")
        try:
            await asyncio.wait({append.last}, timeout=self._timeout)
            if not append.last.done() and not append.sent:
                message = f"the log is overloaded: an append was not written within {self._timeout:g} s. Retry later"
                raise StoreUnavailable(message)
            return await append.last
        finally:
            append.last.cancel()

    async def _run(self) -> None:
        while self._waiting:
            async with self._turn:
                await self._commit(self._take())

    def _take(self) -> list[_Append]:
        """Return the appends of the next batch: each of other streams, so that none depends on another."""
        group: list[_Append] = []
        left: list[_Append] = []
        subjects: set[str] = set()
        events = size = 0
        for append in self._waiting:
            if append.last.done():  # its caller has gone away
                continue
            fits = events + len(append.messages) <= GROUP_EVENTS and size + append.size <= GROUP_BYTES
            first_only = EXPECTED_END in append.messages[0][2]  # the server takes it from the first message only
            if (group and (first_only or not fits)) or not subjects.isdisjoint(append.subjects):
                left.append(append)
                continue
            group.append(append)
            subjects |= append.subjects
            events, size = events + len(append.messages), size + append.size
        self._waiting = left
        return group

    async def _commit(self, group: Sequence[_Append]) -> None:
        """Write a group, or what the server accepts of it, and give each append its answer."""
        if not group:
            return
        for append in group:
            append.sent = True
        try:
            position = (await self._publish(_as_batch([append.messages for append in group]))).seq
        except APIError as error:
            if len(group) == 1 or error.err_code not in REFUSED_FOR_ONE:
                _fail(group, error)
                return
            middle = len(group) // 2
            await self._commit(group[:middle])
            await self._commit(group[middle:])
        except Exception as error:  # noqa: BLE001 - given to the callers
            _fail(group, error)
        except BaseException:
            _fail([*group, *self._waiting], StoreUnavailable("the log is closing"))
            raise
        else:
            self._answer(group, position)

    def _answer(self, group: Sequence[_Append], position: int) -> None:
        written: dict[str, int] = {}
        for append in reversed(group):
            if not append.last.done():
                append.last.set_result(position)
            for subject, _, _ in reversed(append.messages):
                written.setdefault(subject, position)
                position -= 1
        self._refuse_outdated(written)

    def _refuse_outdated(self, written: Mapping[str, int]) -> None:
        """Fail those that wait and expect a stream at a revision that it has left: the server would refuse them."""
        for append in self._waiting:
            if any(written.get(subject, revision) != revision for subject, revision in append.expected.items()):
                append.fail(APIError(400, "wrong last sequence", WRONG_LAST_SEQUENCE))


def _fail(group: Sequence[_Append], error: Exception) -> None:
    for append in group:
        append.fail(copy(error))  # a traceback belongs to one caller


def _as_batch(appends: Sequence[Sequence[Message]]) -> list[Message]:
    batch = {"Nats-Batch-Id": uuid.uuid4().hex}
    messages = [
        (subject, payload, headers | batch | {EVENTS_BEHIND: str(len(append) - number)})
        for append in appends
        for number, (subject, payload, headers) in enumerate(append, 1)
    ]
    for number, (_, _, headers) in enumerate(messages, 1):
        headers["Nats-Batch-Sequence"] = str(number)
    messages[-1][2]["Nats-Batch-Commit"] = "1"
    return messages
