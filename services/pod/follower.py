"""A pod's connection to the serving service: it follows its assignments and reports the outcome of each."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NoReturn, cast

import grpc
import stamina
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import aio
from grpc_status import rpc_status

from rollforward.v1 import (
    AcknowledgeAssignmentRequest,
    Assignment,
    StartPodRequest,
    StopPodRequest,
    WatchAssignmentsRequest,
    WatchAssignmentsResponse,
)
from services.pod.runtime import Outcome, Target

if TYPE_CHECKING:
    from rollforward.v1 import ServingServiceAsyncStub

Metadata = Callable[[], tuple[tuple[str, str], ...]]

CALL_SECONDS = 10.0
STOP_SECONDS = 2.0

# Retries do not change a response with one of these codes.
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)

_INFO = ErrorInfo.DESCRIPTOR

_RANDOM = random.SystemRandom()

# The library would log each retry; an outage is logged once, where it is detected.
stamina.instrumentation.set_on_retry_hooks([])

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PodRefused(Exception):
    """The serving service rejects this pod: its targets are invalid."""


class ServiceAway(Exception):
    """The serving service is unavailable."""


class Follower:
    """Announces the pod and watches its assignments, and retries while the service is unavailable.

    `received` is set with the first snapshot; `acknowledge` queues an outcome for the service, where a newer
    outcome of the same alias replaces one that is not sent yet.
    """

    def __init__(
        self,
        stub: "ServingServiceAsyncStub",
        announcement: StartPodRequest,
        metadata: Metadata,
        offer: Callable[[Assignment], None],
    ) -> None:
        self.received = asyncio.Event()
        self._stub = stub
        self._announcement = announcement
        self._metadata = metadata
        self._offer = offer
        self._announced = asyncio.Event()
        self._epoch = 0
        self._away = False
        self._last: dict[Target, Outcome] = {}
        self._unsent: dict[Target, AcknowledgeAssignmentRequest] = {}
        self._has_unsent = asyncio.Event()

    async def watch(self) -> NoReturn:
        """Pass on every assignment, until cancelled. Raises PodRefused."""
        while True:
            async for attempt in _retry(_is_away):
                with attempt:
                    await self._session()
            # All pods lose the service at once; they must not reconnect at once.
            await asyncio.sleep(_RANDOM.uniform(0.0, 0.5))

    async def _session(self) -> None:
        """Run one watch to its end. Raises ServiceAway if it received nothing."""
        request = WatchAssignmentsRequest(
            pod_id=self._announcement.pod_id, targets=self._announcement.targets, epoch=self._epoch
        )
        received = False
        try:
            await self._announce()
            async for step in self._stub.WatchAssignments(request, metadata=self._metadata()):
                received = True
                if self._away:
                    _log.info("serving service available again")
                self._away = False
                self._take(step)
        except aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
            if not received:
                if not self._away:
                    _log.warning("serving service unavailable, serving current versions and retrying", why=why)
                self._away = True
                raise ServiceAway(why) from error
            _log.warning("watch interrupted, retrying", why=why)
        finally:
            self._announced.clear()

    def _take(self, step: WatchAssignmentsResponse) -> None:
        for assignment in step.assignments:
            if assignment.epoch != self._epoch:
                _log.warning("new epoch of the registry log, following it from the start", epoch=assignment.epoch)
                self._epoch = assignment.epoch
            self._offer(assignment)
        if step.snapshot:
            self.received.set()

    async def _announce(self) -> None:
        """Announce that the pod started; repeats have the same request id and change nothing."""
        try:
            await self._stub.StartPod(self._announcement, timeout=CALL_SECONDS, metadata=self._metadata())
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise PodRefused(error.details()) from error
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
        for target, outcome in self._last.items():
            # The serving log may have lost it; a repeat is harmless.
            if target not in self._unsent:
                self.acknowledge(outcome)
        self._announced.set()

    def acknowledge(self, outcome: Outcome) -> None:
        """Queue an outcome for the service."""
        self._last[outcome.target] = outcome
        self._unsent.pop(outcome.target, None)
        self._unsent[outcome.target] = AcknowledgeAssignmentRequest(
            pod_id=self._announcement.pod_id,
            assignment=outcome.assignment,
            error=outcome.error,
            seconds=outcome.seconds,
            request_id=outcome.request_id,
        )
        self._has_unsent.set()

    async def send(self) -> NoReturn:
        """Send outcomes in order, until cancelled; each until it is accepted or replaced by a newer one."""
        while True:
            await self._has_unsent.wait()
            target, request = next(iter(self._unsent.items()))
            try:
                async for attempt in _retry(_is_transient):
                    with attempt:
                        await self._send_one(target, request)
            except aio.AioRpcError as error:
                _log.warning("acknowledgement rejected", code=error.code().name, details=error.details())
            if self._unsent.get(target) is request:
                del self._unsent[target]
            if not self._unsent:
                self._has_unsent.clear()

    async def _send_one(self, target: Target, request: AcknowledgeAssignmentRequest) -> None:
        await self._announced.wait()
        if self._unsent.get(target) is request:
            await self._stub.AcknowledgeAssignment(request, timeout=CALL_SECONDS, metadata=self._metadata())

    async def stop(self) -> None:
        """Announce that the pod stops; without the announcement the service detects it."""
        try:
            request = StopPodRequest(pod_id=self._announcement.pod_id)
            await self._stub.StopPod(request, timeout=STOP_SECONDS, metadata=self._metadata())
        except aio.AioRpcError as error:
            _log.warning("cannot announce stop", code=error.code().name)


def _retry(on: Callable[[Exception], bool]) -> AsyncIterator[stamina.Attempt]:
    return stamina.retry_context(on, attempts=None, timeout=None, wait_initial=0.2, wait_max=5.0, wait_jitter=0.5)


def _is_away(error: Exception) -> bool:
    return isinstance(error, ServiceAway)


def _is_transient(error: Exception) -> bool:
    return isinstance(error, aio.AioRpcError) and error.code() not in _FINAL and not _is_of_another_epoch(error)


def _is_of_another_epoch(error: aio.AioRpcError) -> bool:
    """Return whether the registry's epoch changed: assignments of the new epoch are acknowledged instead."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    infos = (ErrorInfo.FromString(packed.value) for packed in (status.details if status else ()) if packed.Is(_INFO))
    return any(info.reason == "LOG_EPOCH_CHANGED" for info in infos)
