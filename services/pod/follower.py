"""A pod's talk with the serving service: it follows its assignments and says what became of each."""

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

# An answer with one of these stays the same however often the question is put.
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

# Each retry would be logged with the library's own fields; an outage is said once, where it is met.
stamina.instrumentation.set_on_retry_hooks([])

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PodRefused(Exception):
    """The serving service will not have this pod: what it asks to follow can never be followed."""


class ServiceAway(Exception):
    """The serving service cannot be watched now."""


class Follower:
    """Announces the pod and watches its assignments, again and again while the service is away.

    `received` is set with the first snapshot; `acknowledge` queues an outcome to be told to the service, where a newer
    outcome of the same alias replaces one that was not told yet.
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
        self._untold: dict[Target, AcknowledgeAssignmentRequest] = {}
        self._something_untold = asyncio.Event()

    async def watch(self) -> NoReturn:
        """Hand every assignment on, for ever. Raises PodRefused."""
        while True:
            async for attempt in _retry(_is_away):
                with attempt:
                    await self._session()
            # The service went away from all of its pods at once; they shall not come back at once.
            await asyncio.sleep(_RANDOM.uniform(0.0, 0.5))

    async def _session(self) -> None:
        """One watch, to its end. Raises ServiceAway when it brought nothing."""
        request = WatchAssignmentsRequest(
            pod_id=self._announcement.pod_id, targets=self._announcement.targets, epoch=self._epoch
        )
        received = False
        try:
            await self._announce()
            async for step in self._stub.WatchAssignments(request, metadata=self._metadata()):
                received = True
                if self._away:
                    _log.info("the serving service is back")
                self._away = False
                self._take(step)
        except aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
            if not received:
                if not self._away:
                    _log.warning("the serving service is away; what is served stays, retrying", why=why)
                self._away = True
                raise ServiceAway(why) from error
            _log.warning("watch broke", why=why)
        finally:
            self._announced.clear()

    def _take(self, step: WatchAssignmentsResponse) -> None:
        for assignment in step.assignments:
            if assignment.epoch != self._epoch:
                _log.warning("the registry log began an epoch: following it afresh", epoch=assignment.epoch)
                self._epoch = assignment.epoch
            self._offer(assignment)
        if step.snapshot:
            self.received.set()

    async def _announce(self) -> None:
        """Say that the pod started: with one request id, so every time but the first changes nothing."""
        try:
            await self._stub.StartPod(self._announcement, timeout=CALL_SECONDS, metadata=self._metadata())
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise PodRefused(error.details()) from error
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
        for target, outcome in self._last.items():
            # The serving log may have lost it; to repeat it changes nothing.
            if target not in self._untold:
                self.acknowledge(outcome)
        self._announced.set()

    def acknowledge(self, outcome: Outcome) -> None:
        """Queue an outcome to be told."""
        self._last[outcome.target] = outcome
        self._untold.pop(outcome.target, None)
        self._untold[outcome.target] = AcknowledgeAssignmentRequest(
            pod_id=self._announcement.pod_id,
            assignment=outcome.assignment,
            error=outcome.error,
            seconds=outcome.seconds,
            request_id=outcome.request_id,
        )
        self._something_untold.set()

    async def tell(self) -> NoReturn:
        """Tell the outcomes in order, for ever, each until the service has answered or a newer one took its place."""
        while True:
            await self._something_untold.wait()
            target, request = next(iter(self._untold.items()))
            try:
                async for attempt in _retry(_is_transient):
                    with attempt:
                        await self._tell_one(target, request)
            except aio.AioRpcError as error:
                _log.warning("acknowledgement refused", code=error.code().name, details=error.details())
            if self._untold.get(target) is request:
                del self._untold[target]
            if not self._untold:
                self._something_untold.clear()

    async def _tell_one(self, target: Target, request: AcknowledgeAssignmentRequest) -> None:
        await self._announced.wait()
        if self._untold.get(target) is request:
            await self._stub.AcknowledgeAssignment(request, timeout=CALL_SECONDS, metadata=self._metadata())

    async def stop(self) -> None:
        """Say that the pod stops; a service that is away finds out by itself."""
        try:
            request = StopPodRequest(pod_id=self._announcement.pod_id)
            await self._stub.StopPod(request, timeout=STOP_SECONDS, metadata=self._metadata())
        except aio.AioRpcError as error:
            _log.warning("stop not told", code=error.code().name)


def _retry(on: Callable[[Exception], bool]) -> AsyncIterator[stamina.Attempt]:
    return stamina.retry_context(on, attempts=None, timeout=None, wait_initial=0.2, wait_max=5.0, wait_jitter=0.5)


def _is_away(error: Exception) -> bool:
    return isinstance(error, ServiceAway)


def _is_transient(error: Exception) -> bool:
    return isinstance(error, aio.AioRpcError) and error.code() not in _FINAL and not _is_of_another_epoch(error)


def _is_of_another_epoch(error: aio.AioRpcError) -> bool:
    """Return whether the registry's epoch changed: what is assigned in the new one is acknowledged instead."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    infos = (ErrorInfo.FromString(packed.value) for packed in (status.details if status else ()) if packed.Is(_INFO))
    return any(info.reason == "LOG_EPOCH_CHANGED" for info in infos)
