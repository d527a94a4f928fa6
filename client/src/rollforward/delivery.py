"""Delivers a journal through a connection, exactly once, whoever does it and however often it breaks off."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import grpc

from rollforward import v1
from rollforward.artifacts import upload
from rollforward.batches import apart
from rollforward.beginnings import begin
from rollforward.errors import (
    Conflict,
    Forbidden,
    InternalError,
    RollforwardError,
    Unauthenticated,
    Unavailable,
)
from rollforward.journal_reader import Reader
from rollforward.journal_records import Artifact, Call, Count, Start

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollforward.batches import Step
    from rollforward.connection import Connection
    from rollforward.journal import Journal
    from rollforward.journal_reader import Source

_FIRST_PATIENCE: Final = 5.0
# A defect of the service may pass; one that stays shall not hold up all that comes after.
_TRIES: Final = 6
# What is no fault of what was logged: it waits until somebody has mended it.
_UNKNOWN_CALL: Final = grpc.StatusCode.UNIMPLEMENTED.name
_NOT_YET: Final = frozenset({"CONNECTION_CLOSED", "SERVICE_UNKNOWN", "RUN_NOT_FOUND", "UNKNOWN"})
_NOTHING: Final = Count(0, 0)


class Delivery:
    """The delivering of one journal that this process has locked."""

    def __init__(
        self,
        journal: Journal | None,
        connection: Connection,
        *,
        memory: Source | None = None,
        refused: Callable[[Count, RollforwardError], None],
        settled: Callable[[Count], None] = lambda _: None,
    ) -> None:
        """`memory` is delivered after the journal; the others are told how much was delivered, or refused for good."""
        self._journal = journal
        self._connection = connection
        self._memory = memory
        self._settled = settled
        self._refused = refused
        self._patience = min(_FIRST_PATIENCE, connection.timeout)
        self.readers: dict[str, Reader] = {}

    def round(self) -> bool:
        """Deliver a batch of each strand; False when nothing waits.

        Raises the RollforwardError that keeps anything from being delivered now, OSError.
        """
        self._look_for_strands()
        sources: list[Source] = [*self.readers.values(), *([self._memory] if self._memory else [])]
        # All of them, not any().
        return sum([self._deliver(source) for source in sources]) > 0

    def sweep(self) -> bool:
        """Remove the strands that are delivered and nobody writes any more; whether none is left. Raises OSError."""
        for strand, reader in list(self.readers.items()):
            if self._journal and self._journal.remove_strand(strand, reader.is_through):
                del self.readers[strand]
        return not self.readers

    def _look_for_strands(self) -> None:
        if self._journal is None:
            return
        for strand in self._journal.strands():
            if strand not in self.readers:
                self.readers[strand] = Reader(self._journal, strand)

    def _deliver(self, source: Source) -> bool:
        batch = source.next()
        if batch is None:
            return False
        for step in batch.steps[source.done :]:
            source.tries += 1
            refused = self._do(step, source.tries)
            source.note(step, refused)
            self._settled(step.content.minus(refused))
            self._clean_up(step)
        source.settle()
        return True

    def _do(self, step: Step, tries: int) -> Count:
        """Do a step, and of one that is refused all that can be done by itself; how much was refused for good."""
        failure = self._failure_of(step, tries)
        if failure is None:
            return _NOTHING
        parts = apart(step)
        if not parts:
            self._refused(step.content, failure)
            return step.content
        refused = [self._do(part, tries) for part in parts]
        return Count(sum(one.points for one in refused), sum(one.labels for one in refused))

    def _failure_of(self, step: Step, tries: int) -> RollforwardError | None:
        try:
            self._send(step)
        except RollforwardError as error:
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
        self._connection.call(getattr(self._connection.tracking, method), request, timeout=self._patience)

    def _upload(self, waiting: Artifact) -> None:
        assert self._journal is not None  # noqa: S101 - artifacts wait in journals only
        request = v1.LogArtifactRequest()
        request.CopyFrom(waiting.request)
        try:
            request.digest, _ = upload(self._journal.artifact(request.request_id), connection=self._connection)
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


def _may_pass(error: RollforwardError, step: Step, tries: int) -> bool:
    if isinstance(error, Unavailable | Forbidden | Unauthenticated | Conflict) or error.reason in _NOT_YET:
        return True
    if isinstance(step.action, Start):
        # Without it nothing else may be delivered: it would end up in another's run.
        return True
    return isinstance(error, InternalError) and error.reason != _UNKNOWN_CALL and tries < _TRIES
