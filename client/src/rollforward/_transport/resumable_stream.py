"""A stream of a log's changes that reconnects when it breaks, and yields every change once, in order."""

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


class StreamStep(Protocol):
    """A message of the stream, and the position that it advances to."""

    @property
    def position(self) -> int: ...
    @property
    def epoch(self) -> int: ...


_Step = TypeVar("_Step", bound=StreamStep)
_Change = TypeVar("_Change")

_logger = logging.getLogger(__name__)


class ResumableStream(ABC, Generic[_Step, _Change]):
    """An endless iterator over changes.

    It reconnects when the connection is lost, with growing pauses, and resumes after the last change. When the log
    starts another epoch, because it lost events or was restored, it cannot resume: it restarts with a snapshot, logs a
    warning, and changes its `epoch`.

    To end the stream, leave the loop or the `with` block, or call close() from any thread.
    """

    def __init__(self, connection: Connection, log: str, position: int | None, epoch: int | None = None) -> None:
        """Start after a position of a log, read in an epoch; without a position, receive a snapshot first."""
        self._connection = connection
        self._log = log
        self._changes: deque[tuple[int, _Change]] = deque()
        self._reached = position
        self._epoch = connection.epoch(log) if epoch is None else epoch
        self._given = position or 0
        self._call: ResponseStream[_Step] | None = None
        self._closed = threading.Event()
        # The first response must come within the timeout; after that, retries never end.
        self._backoff = Backoff(connection.timeout)
        self._connecting = Backoff(CONNECT_SECONDS)
        self._answered = False
        while self._reached is None and not self._closed.is_set():
            self._receive()

    @abstractmethod
    def _open(self, position: int | None) -> ResponseStream[_Step]:
        """Open a stream after a position; None for one that starts with a snapshot, which replaces the last one."""

    @abstractmethod
    def _take_snapshot(self, step: _Step) -> bool:
        """Add a step's part of the snapshot; return whether more parts follow."""

    @abstractmethod
    def _changes_of(self, step: _Step) -> Iterable[tuple[int, _Change]]:
        """Return the changes in a step, each with the end of the append that it belongs to."""

    @property
    def epoch(self) -> int:
        """The epoch of `position`; 0 is the first."""
        return self._epoch

    @property
    def position(self) -> int:
        """The position to resume at: every change up to it was returned."""
        return self._given if self._changes else max(self._given, self._reached or 0)

    def close(self) -> None:
        """End the stream, and a loop over it. Closing it again is harmless."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Change:
        while not self._closed.is_set():
            if self._changes:
                end, change = self._changes.popleft()
                # An append counts as returned only after the last of its changes.
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
        # Leaving a loop by `break` drops its iterator, and must close the stream.
        if hasattr(self, "_closed"):
            self.close()

    def _receive(self) -> None:
        """Receive the next step, on a new stream if the old one broke; return when the stream is closed."""
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
            # The service ended the stream, as it does when it shuts down.
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
        self._changes.extend(change for change in self._changes_of(step) if change[0] > seen)
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
        """Return whether the log started another epoch and the stream can start again."""
        if from_rpc_error(error).reason != EPOCH_CHANGED:
            return False
        adopted = self._connection.adopts_epoch(error)
        if self._answered and self._reached is not None:
            _logger.warning("log started another epoch, restarting the watch with a snapshot, log=%s", self._log)
            self._changes.clear()
            self._reached, self._given = None, 0
            return True
        return adopted
