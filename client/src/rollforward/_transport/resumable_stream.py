"""Follow a log over a stream that is made again whenever it breaks: every change once, in order."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import grpc

from rollforward._transport.backoff import Backoff
from rollforward._transport.channel import ResponseStream, is_retryable
from rollforward._transport.connection import CONNECT_SECONDS
from rollforward.errors import EPOCH_CHANGED, from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from rollforward._transport.connection import Connection


class Step(Protocol):
    """What a watch is told at once, and the position that it is brought to."""

    @property
    def position(self) -> int: ...
    @property
    def epoch(self) -> int: ...


_Step = TypeVar("_Step", bound=Step)
_Change = TypeVar("_Change")

_logger = logging.getLogger(__name__)


class ResumableStream(ABC, Generic[_Step, _Change]):
    """An endless iterator over changes.

    A lost connection is made again, with pauses that grow, and resumes where it stopped. When the log began another
    epoch, because it lost events or was restored, there is nothing to resume from: the watch begins again with a
    snapshot of now, logs a warning, and its `epoch` is the new one.

    Leaving the loop, leaving its `with` block, or close() from any thread ends the stream.
    """

    def __init__(self, connection: Connection, log: str, position: int | None, epoch: int | None = None) -> None:
        """Begin behind a position of a log, read in an epoch; without one, take in the snapshot of now first."""
        self._connection = connection
        self._log = log
        self._changes: deque[tuple[int, _Change]] = deque()
        self._reached = position
        self._epoch = connection.epoch(log) if epoch is None else epoch
        self._given = position or 0
        self._call: ResponseStream[_Step] | None = None
        self._closed = threading.Event()
        # The first answer must come in time; after that the watch lasts, whatever happens to the service.
        self._backoff = Backoff(connection.timeout)
        self._connecting = Backoff(CONNECT_SECONDS)
        self._answered = False
        while self._reached is None and not self._closed.is_set():
            self._receive()

    @abstractmethod
    def _open(self, position: int | None) -> ResponseStream[_Step]:
        """Open a stream after a position, or with a snapshot that replaces the one received so far."""

    @abstractmethod
    def _take_snapshot(self, step: _Step) -> bool:
        """Add a step's part of the snapshot. Return whether more of it follows."""

    @abstractmethod
    def _changes_of(self, step: _Step) -> Iterable[tuple[int, _Change]]:
        """Return the changes in a step, each with the end of the append that it belongs to."""

    @property
    def epoch(self) -> int:
        """The epoch of the log that `position` is of; 0 for the first."""
        return self._epoch

    @property
    def position(self) -> int:
        """Where to resume: every change up to it was given out."""
        return self._given if self._changes else max(self._given, self._reached or 0)

    def close(self) -> None:
        """End the watch; a loop over it ends too. Closing twice is harmless."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Change:
        while not self._closed.is_set():
            if self._changes:
                end, change = self._changes.popleft()
                # None of the changes of an append counts as given before the last one is.
                if not self._changes or self._changes[0][0] > end:
                    self._given = end
                return change
            self._receive()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left by break drops its iterator: the stream must not stay open.
        if hasattr(self, "_closed"):
            self.close()

    def _receive(self) -> None:
        """Take in the next step, over a new stream if the old one broke; nothing once the watch is closed."""
        while not self._closed.is_set():
            try:
                step = next(self._stream(), None)
            except grpc.RpcError as error:
                self._call = None
                self._pause_or_raise(error)
                continue
            if step is not None:
                self._take(step)
                return
            # The service ended the stream in good order, as it does when it stops.
            self._call = None
            self._closed.wait(self._backoff.next_pause() or 0)

    def _stream(self) -> ResponseStream[_Step]:
        if self._call is None:
            self._call = self._open(self._reached)
            if self._closed.is_set():
                self._call.cancel()
        return self._call

    def _take(self, step: _Step) -> None:
        self._connection.note_response()
        if not self._answered:
            self._answered = True
            self._backoff = Backoff()
        self._backoff.reset()
        self._epoch = step.epoch
        if self._take_snapshot(step):
            return
        seen = self._reached or 0
        self._given = max(self._given, seen)
        self._changes.extend(one for one in self._changes_of(step) if one[0] > seen)
        self._reached = max(seen, step.position)
        self._connection.note_epoch(self._log, step.epoch)
        self._connection.note_position(self._log, step.position)

    def _pause_or_raise(self, error: grpc.RpcError) -> None:
        if self._closed.is_set() or self._restarts(error):
            return
        hopeless = self._connection.note_failure(error) and not self._answered
        pauses = self._connecting if hopeless else self._backoff
        pause = pauses.next_pause() if is_retryable(error) else None
        if pause is None:
            raise self._connection.failure(error) from error
        self._closed.wait(pause)

    def _restarts(self, error: grpc.RpcError) -> bool:
        """Return whether the log is in another epoch and the watch, if it ever began, can begin again."""
        if from_rpc_error(error).reason != EPOCH_CHANGED:
            return False
        adopted = self._connection.adopts_epoch(error)
        if self._answered and self._reached is not None:
            _logger.warning("the %s log began another epoch: the watch begins again with a snapshot", self._log)
            self._changes.clear()
            self._reached, self._given = None, 0
            return True
        return adopted
