"""Follow aliases: every change once, in order, across lost connections."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Self

import grpc

from rollforward import v1
from rollforward.backoff import Backoff
from rollforward.channel import AnswerStream, is_out_of_reach
from rollforward.connection import Connection, current
from rollforward.errors import from_rpc_error
from rollforward.references import AliasReference, parse_filter, revision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


def watch(
    reference: str = "",
    *,
    from_revision: int | None = None,
    tags: Mapping[str, str] | None = None,
    connection: Connection | None = None,
) -> Watch:
    """Follow "model@alias", all aliases of "model", "@alias" of every model, or with "" every alias.

    `for change in watch(...)` gives each change once, in order. Without `from_revision` it begins now, before it
    returns, and `aliases` shows what stands now; with it, after that revision. With `tags`, only of models that have
    all of them when the change is sent.
    Raises InvalidRequest (INVALID_REFERENCE, INVALID_REVISION, POSITION_AHEAD), Unavailable when there is no answer at
    all.
    """
    named = parse_filter(reference)
    return Watch(current(connection), named, revision(from_revision, "from_revision"), tags)


class Watch:
    """An endless iterator over alias changes.

    A lost connection is made again, with pauses that grow, and resumes where it stopped.

    Leaving the loop, leaving its `with` block, or close() from any thread ends the stream.
    """

    def __init__(
        self,
        connection: Connection,
        reference: AliasReference,
        from_revision: int | None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.aliases: tuple[v1.Alias, ...] = ()
        """What stood when the watch began; empty when it began at a revision."""
        self._connection = connection
        self._reference = reference
        self._tags = dict(tags or {})
        self._changes: deque[v1.AliasChange] = deque()
        self._reached = from_revision
        self._given = from_revision or 0
        self._call: AnswerStream[v1.WatchAliasesResponse] | None = None
        self._closed = threading.Event()
        # The first answer must come in time; after that the watch lasts, whatever happens to the service.
        self._backoff = Backoff(connection.timeout)
        self._answered = False
        while self._reached is None and not self._closed.is_set():
            self._receive()

    @property
    def position(self) -> int:
        """Where to resume with `from_revision`: every change up to it was given out."""
        return self._given if self._changes else max(self._given, self._reached or 0)

    def close(self) -> None:
        """End the watch; a loop over it ends too. Closing twice is harmless."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> v1.AliasChange:
        while not self._closed.is_set():
            if self._changes:
                change = self._changes.popleft()
                # The changes of one append have one revision: none of them is given before the last one is.
                if not self._changes or self._changes[0].revision > change.revision:
                    self._given = change.revision
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

    def _stream(self) -> AnswerStream[v1.WatchAliasesResponse]:
        if self._call is None:
            model, alias = self._reference
            request = v1.WatchAliasesRequest(model=model, alias=alias, from_revision=self._reached, tags=self._tags)
            stub = self._connection.registry
            self._call = stub.WatchAliases(request, metadata=self._connection.metadata())
            if self._reached is None:
                self.aliases = ()
            if self._closed.is_set():
                self._call.cancel()
        return self._call

    def _take(self, step: v1.WatchAliasesResponse) -> None:
        if not self._answered:
            self._answered = True
            self._backoff = Backoff()
        self._backoff.reset()
        if step.HasField("snapshot"):
            self.aliases += tuple(step.snapshot.aliases)
            if step.snapshot.continues:
                return
        seen = self._reached or 0
        self._given = max(self._given, seen)
        self._changes.extend(change for change in step.changes.changes if change.revision > seen)
        self._reached = max(seen, step.position)
        self._connection.note_position("registry", step.position)

    def _pause_or_raise(self, error: grpc.RpcError) -> None:
        if self._closed.is_set():
            return
        pause = self._backoff.next_pause() if is_out_of_reach(error) else None
        if pause is None:
            raise from_rpc_error(error) from error
        self._closed.wait(pause)
