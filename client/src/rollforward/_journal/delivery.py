"""Exactly-once delivery of a journal over a connection, across restarts and changes of the delivering process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import grpc

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._journal.batches import split
from rollforward._journal.cursor import Position
from rollforward._journal.directory import FIRST_SEGMENT_LOG
from rollforward._journal.reader import Reader
from rollforward._journal.records import Artifact, Call, Count, Start
from rollforward._journal.start_run_call import start_run
from rollforward.errors import (
    Conflict,
    Forbidden,
    InternalError,
    RollforwardError,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rollforward._journal.batches import DeliveryStep
    from rollforward._journal.directory import Journal
    from rollforward._journal.reader import MemoryReader, Source
    from rollforward._transport.connection import Connection

_FIRST_TIMEOUT: Final = 5.0
# An internal error may be transient. One that lasts about half a minute must not hold up later records.
_TRIES: Final = 20
# An old server does not know every call: the record waits for an upgrade.
_UNKNOWN_CALL: Final = grpc.StatusCode.UNIMPLEMENTED.name
# Every tracking service knows these: UNIMPLEMENTED means that another server listens at the address.
_KNOWN_CALLS: Final = frozenset({"LogBatch", "FinishRun"})
_RETRIED_REASONS: Final = frozenset({"CONNECTION_CLOSED", "SERVICE_UNKNOWN", "RUN_NOT_FOUND", "UNKNOWN"})
_NOTHING: Final = Count(0, 0)
_BEGINNING: Final = Position(0, 0)


class Delivery:
    """The delivery of one journal that this process has locked."""

    def __init__(
        self,
        journal: Journal | None,
        connection: Connection,
        *,
        memory: MemoryReader | None = None,
        on_rejected: Callable[[Count, RollforwardError], None],
        on_settled: Callable[[Count], None] = lambda _: None,
        on_uploaded: Callable[[int, int], None] | None = None,
        call_timeout: float = _FIRST_TIMEOUT,
        ends: Mapping[str, Position] | None = None,
    ) -> None:
        """Prepare to deliver a journal.

        Args:
            journal: The journal; None to deliver only `memory`.
            connection: The connection to deliver over.
            memory: Records of the first segment log that do not fit on the disk.
            on_rejected: Called with the number of permanently rejected records, and why.
            on_settled: Called with the number of delivered records.
            on_uploaded: Called with the bytes of an upload done so far, and in all.
            call_timeout: The first timeout of a call, in seconds; doubled after each call that exceeds it.
            ends: By segment log, the position to stop at; None to deliver everything.
        """
        self._journal = journal
        self._connection = connection
        self._memory = memory
        self._on_settled = on_settled
        self._on_rejected = on_rejected
        self._on_uploaded = on_uploaded
        self._ends = ends
        self._call_timeout = min(call_timeout, connection.timeout)
        self.readers: dict[str, Reader] = {}

    def round(self) -> bool:
        """Deliver a batch of each segment log; return False if no records are left.

        Raises:
            RollforwardError: Nothing can be delivered at the moment.
            OSError: See the message.
        """
        self._find_segment_logs()
        # The first segment log holds the start of the run.
        first = self._deliver_first()
        forked = [self._deliver(reader) for name, reader in self.readers.items() if name != FIRST_SEGMENT_LOG]
        return first or any(forked)

    def _deliver_first(self) -> bool:
        sources: list[Source] = [self.readers[FIRST_SEGMENT_LOG]] if FIRST_SEGMENT_LOG in self.readers else []
        if self._memory is not None:
            # In order: records taken out of memory are older than those written since, and newer than all before.
            sources.insert(0 if self._memory.has_unsent else len(sources), self._memory)
        return any(self._deliver(source) for source in sources)

    def sweep(self) -> bool:
        """Remove the delivered segment logs that no process writes to; return whether none is left.

        Raises:
            OSError: See the message.
        """
        for segment_log, reader in list(self.readers.items()):
            if self._journal and self._journal.remove_segment_log(segment_log, reader.is_exhausted):
                del self.readers[segment_log]
        return not self.readers

    def _find_segment_logs(self) -> None:
        if self._journal is None:
            return
        for segment_log in self._journal.segment_logs():
            if segment_log not in self.readers:
                self.readers[segment_log] = Reader(self._journal, segment_log)

    def _is_at_its_end(self, reader: Reader) -> bool:
        return self._ends is not None and reader.cursor.position >= self._ends.get(reader.segment_log, _BEGINNING)

    def _deliver(self, source: Source) -> bool:
        if isinstance(source, Reader) and self._is_at_its_end(source):
            return False
        batch = source.next()
        if batch is None:
            return False
        for step in batch.steps[source.done :]:
            source.tries += 1
            rejected = self._do(step, source)
            source.note(step, rejected)
            self._on_settled(step.content.minus(rejected))
            self._clean_up(step)
        source.settle()
        return True

    def _do(self, step: DeliveryStep, source: Source) -> Count:
        """Do a step, in parts if it is rejected as a whole; return how many records were permanently rejected."""
        if not source.is_split:
            failure = self._failure_of(step, source.tries)
            if failure is None:
                return _NOTHING
            if not split(step):
                return self._reject([(step, failure)])
            source.mark_split()
        parts = split(step) or [step]
        failures = [(part, self._failure_of(part, source.tries)) for part in parts]
        return self._reject([(part, failure) for part, failure in failures if failure is not None])

    def _reject(self, failures: Sequence[tuple[DeliveryStep, RollforwardError]]) -> Count:
        rejected = _NOTHING
        for step, failure in failures:
            self._on_rejected(step.content, failure)
            rejected = rejected.plus(step.content)
        return rejected

    def _failure_of(self, step: DeliveryStep, tries: int) -> RollforwardError | None:
        try:
            self._send(step)
        except RollforwardError as error:
            if _was_delivered(error, step):
                return None
            if _is_transient(error, step, tries):
                self._extend_timeout(error)
                raise
            return error
        return None

    def _send(self, step: DeliveryStep) -> None:
        match step.action:
            case Start():
                start_run(self._connection, step.action, timeout=self._call_timeout)
            case Artifact():
                self._upload(step.action)
            case Call():
                self._call(step.action.method, step.action.request)

    def _call(self, method: str, request: Any) -> None:
        stub = getattr(self._connection.tracking, method)
        # A short timeout: one attempt shows whether a server listens.
        self._connection.call(stub, request, timeout=self._call_timeout)

    def _upload(self, count_waiting: Artifact) -> None:
        assert self._journal is not None  # noqa: S101 - only journals hold artifacts
        request = v1.LogArtifactRequest()
        request.CopyFrom(count_waiting.request)
        try:
            folder = self._journal.artifact(request.request_id)
            request.digest, _ = ArtifactTrees(self._connection).upload(folder, progress=self._on_uploaded)
        except OSError as error:
            raise InternalError("WRITER_FAILED", str(error)) from error
        self._call("LogArtifact", request)

    def _clean_up(self, step: DeliveryStep) -> None:
        if isinstance(step.action, Artifact) and self._journal is not None:
            shutil.rmtree(self._journal.artifact(step.action.request.request_id), ignore_errors=True)

    def _extend_timeout(self, error: RollforwardError) -> None:
        # On a slow link, a batch that needs more than the first timeout would never arrive.
        if error.reason == grpc.StatusCode.DEADLINE_EXCEEDED.name:
            self._call_timeout = min(self._call_timeout * 2, self._connection.timeout)


def _was_delivered(error: RollforwardError, step: DeliveryStep) -> bool:
    # The same range was sent in another form: its end was lost since, or another version of this library sent it.
    return error.reason == "REQUEST_ID_REUSED" and isinstance(step.action.request, v1.LogBatchRequest)


def _is_transient(error: RollforwardError, step: DeliveryStep, tries: int) -> bool:
    if isinstance(error, Unavailable | Forbidden | Unauthenticated | Conflict) or error.reason in _RETRIED_REASONS:
        return True
    if isinstance(step.action, Start):
        # Nothing may be delivered before it: the records would end up in another run.
        return True
    if error.reason == _UNKNOWN_CALL:
        return isinstance(step.action, Call) and step.action.method in _KNOWN_CALLS
    return isinstance(error, InternalError) and tries < _TRIES
