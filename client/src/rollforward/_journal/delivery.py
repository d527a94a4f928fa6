"""Delivers a journal through a connection, exactly once, whoever does it and however often it breaks off."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import grpc

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._journal.batches import apart
from rollforward._journal.cursor import Place
from rollforward._journal.directory import FIRST_STRAND
from rollforward._journal.reader import Reader
from rollforward._journal.records import Artifact, Call, Count, Start
from rollforward._journal.start_run_call import begin
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

    from rollforward._journal.batches import Step
    from rollforward._journal.directory import Journal
    from rollforward._journal.reader import MemoryReader, Source
    from rollforward._transport.connection import Connection

_FIRST_PATIENCE: Final = 5.0
# A defect of the service may pass; one that stays, for about half a minute, shall not hold up all that comes after.
_TRIES: Final = 20
# What is no fault of what was logged: it waits until somebody has mended it.
_UNKNOWN_CALL: Final = grpc.StatusCode.UNIMPLEMENTED.name
# What every service knows: whoever says otherwise is something else that answers at its address.
_KNOWN_CALLS: Final = frozenset({"LogBatch", "FinishRun"})
_NOT_YET: Final = frozenset({"CONNECTION_CLOSED", "SERVICE_UNKNOWN", "RUN_NOT_FOUND", "UNKNOWN"})
_NOTHING: Final = Count(0, 0)
_BEGINNING: Final = Place(0, 0)


class Delivery:
    """The delivering of one journal that this process has locked."""

    def __init__(
        self,
        journal: Journal | None,
        connection: Connection,
        *,
        memory: MemoryReader | None = None,
        refused: Callable[[Count, RollforwardError], None],
        settled: Callable[[Count], None] = lambda _: None,
        uploaded: Callable[[int, int], None] | None = None,
        patience: float = _FIRST_PATIENCE,
        ends: Mapping[str, Place] | None = None,
    ) -> None:
        """Prepare to deliver a journal.

        `memory` is what the first segment log has no space for on the disk, `patience` how long a call may take at
        first. Of each segment log nothing is delivered after its end in `ends`, where it is given.

        The others are told how much was delivered, how much was refused for good, and how far an upload is, in bytes
        and of how many.
        """
        self._journal = journal
        self._connection = connection
        self._memory = memory
        self._settled = settled
        self._refused = refused
        self._uploaded = uploaded
        self._ends = ends
        self._patience = min(patience, connection.timeout)
        self.readers: dict[str, Reader] = {}

    def round(self) -> bool:
        """Deliver a batch of each strand; False when nothing waits.

        Raises the RollforwardError that keeps anything from being delivered now, OSError.
        """
        self._look_for_strands()
        # The run's start is in the first.
        first = self._deliver_first()
        forked = [self._deliver(reader) for name, reader in self.readers.items() if name != FIRST_STRAND]
        return first or any(forked)

    def _deliver_first(self) -> bool:
        sources: list[Source] = [self.readers[FIRST_STRAND]] if FIRST_STRAND in self.readers else []
        if self._memory is not None:
            # In order: what was taken out of memory is older than what has come to the disk since, and younger than
            # all before.
            sources.insert(0 if self._memory.is_under_way else len(sources), self._memory)
        return any(self._deliver(source) for source in sources)

    def sweep(self) -> bool:
        """Remove the strands that are delivered and nobody writes any more; whether none is left.

        Raises:
            OSError: See the message.
        """
        for segment_log, reader in list(self.readers.items()):
            if self._journal and self._journal.remove_strand(segment_log, reader.is_through):
                del self.readers[segment_log]
        return not self.readers

    def _look_for_strands(self) -> None:
        if self._journal is None:
            return
        for segment_log in self._journal.segment_logs():
            if segment_log not in self.readers:
                self.readers[segment_log] = Reader(self._journal, segment_log)

    def _is_at_its_end(self, reader: Reader) -> bool:
        return self._ends is not None and reader.cursor.place >= self._ends.get(reader.segment_log, _BEGINNING)

    def _deliver(self, source: Source) -> bool:
        if isinstance(source, Reader) and self._is_at_its_end(source):
            return False
        batch = source.next()
        if batch is None:
            return False
        for step in batch.steps[source.done :]:
            source.tries += 1
            refused = self._do(step, source)
            source.note(step, refused)
            self._settled(step.content.minus(refused))
            self._clean_up(step)
        source.settle()
        return True

    def _do(self, step: Step, source: Source) -> Count:
        """Do a step, and of one that is refused all that can be done by itself; how much was refused for good."""
        if not source.apart:
            failure = self._failure_of(step, source.tries)
            if failure is None:
                return _NOTHING
            if not apart(step):
                return self._refuse([(step, failure)])
            source.take_apart()
        parts = apart(step) or [step]
        failures = [(part, self._failure_of(part, source.tries)) for part in parts]
        return self._refuse([(part, failure) for part, failure in failures if failure is not None])

    def _refuse(self, failures: Sequence[tuple[Step, RollforwardError]]) -> Count:
        refused = _NOTHING
        for step, failure in failures:
            self._refused(step.content, failure)
            refused = refused.plus(step.content)
        return refused

    def _failure_of(self, step: Step, tries: int) -> RollforwardError | None:
        try:
            self._send(step)
        except RollforwardError as error:
            if _was_done(error, step):
                return None
            if _may_pass(error, step, tries):
                self._be_more_patient(error)
                raise
            return error
        return None

    def _send(self, step: Step) -> None:
        match step.action:
            case Start():
                begin(self._connection, step.action, timeout=self._patience)
            case Artifact():
                self._upload(step.action)
            case Call():
                self._call(step.action.method, step.action.request)

    def _call(self, method: str, request: Any) -> None:
        stub = getattr(self._connection.tracking, method)
        # As long as a command tries to connect: then one attempt is enough to know whether something listens.
        self._connection.call(stub, request, timeout=self._patience)

    def _upload(self, waiting: Artifact) -> None:
        assert self._journal is not None  # noqa: S101 - artifacts wait in journals only
        request = v1.LogArtifactRequest()
        request.CopyFrom(waiting.request)
        try:
            folder = self._journal.artifact(request.request_id)
            request.digest, _ = ArtifactTrees(self._connection).upload(folder, progress=self._uploaded)
        except OSError as error:
            raise InternalError("WRITER_FAILED", str(error)) from error
        self._call("LogArtifact", request)

    def _clean_up(self, step: Step) -> None:
        if isinstance(step.action, Artifact) and self._journal is not None:
            shutil.rmtree(self._journal.artifact(step.action.request.request_id), ignore_errors=True)

    def _be_more_patient(self, error: RollforwardError) -> None:
        # A batch that takes longer than this on a slow line would never arrive.
        if error.reason == grpc.StatusCode.DEADLINE_EXCEEDED.name:
            self._patience = min(self._patience * 2, self._connection.timeout)


def _was_done(error: RollforwardError, step: Step) -> bool:
    # The same range in another form: the end of it is gone since, or another version of this library made it.
    return error.reason == "REQUEST_ID_REUSED" and isinstance(step.action.request, v1.LogBatchRequest)


def _may_pass(error: RollforwardError, step: Step, tries: int) -> bool:
    if isinstance(error, Unavailable | Forbidden | Unauthenticated | Conflict) or error.reason in _NOT_YET:
        return True
    if isinstance(step.action, Start):
        # Without it nothing else may be delivered: it would end up in another's run.
        return True
    if error.reason == _UNKNOWN_CALL:
        return isinstance(step.action, Call) and step.action.method in _KNOWN_CALLS
    return isinstance(error, InternalError) and tries < _TRIES
