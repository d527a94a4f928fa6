"""A real pod in its own process follows an alias: what it serves, what it reports, and how it survives outages."""

import asyncio
import json
import pickle
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
import skops.io
from google.protobuf.message import Message
from grpc import aio
from sklearn.dummy import DummyClassifier

from eventstore.commands.handler import CommandHandler
from eventstore.epochs import begin_epoch, next_epoch, on_wire
from eventstore.event import Metadata, NewEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import Client, v1
from rollforward.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from services import registry, serving
from services.artifacts.garbage_collection import Collector
from services.artifacts.open_store import open_directory
from services.artifacts.servicer import ArtifactServicer
from services.rpc.interceptor import Interceptor
from services.serving.assignments import AssignmentsProjection
from services.serving.decider import DECIDER
from services.serving.projection import ServingProjection
from services.serving.servicer import ServingServicer
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

if TYPE_CHECKING:
    from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceAsyncStub

START = """
import sys
from pathlib import Path
from services.pod.command import command
server, cache, *targets = sys.argv[1:]
sys.exit(command(*targets, server=server, grpc="127.0.0.1:0", cache=Path(cache)))
"""
TARGET = "iris@champion"


async def no_artifacts() -> set[str]:
    """Return no artifact digests."""
    return set()


class Services:
    """The services that a pod uses, over logs in memory; they can stop and restart at the same address."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.registry = MemoryStore("registry", registry.EVENTS)
        self.serving = MemoryStore("serving", serving.EVENTS)
        database = Database(str(root / "rows"))
        self.tails = [Tail(self.serving), Tail(self.registry)]
        self.pods = Projector(self.tails[0], ServingProjection(), database)
        self.assignments = Projector(self.tails[1], AssignmentsProjection(), database)
        self.blobs = open_directory(root / "blobs")
        self.port = 0
        self._server: aio.Server | None = None

    @property
    def address(self) -> str:
        """Return their address."""
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Start listening."""
        server = aio.server(interceptors=[Interceptor()])
        v1.add_ArtifactServiceServicer_to_server(
            ArtifactServicer(self.blobs, Collector(self.blobs, no_artifacts)), server
        )
        commands = CommandHandler(self.serving, DECIDER, self.pods)
        servicer = ServingServicer(commands, self.pods, self.assignments)
        v1.add_ServingServiceServicer_to_server(servicer, server)
        self.port = server.add_insecure_port(self.address)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Cancel running calls and stop listening."""
        assert self._server is not None
        await self._server.stop(None)

    async def lose_events(self, head: int) -> None:
        """Restart with a registry log that lost the events after a position, in a new epoch."""
        await self.stop()
        await self.assignments.stop()
        await self.tails[1].stop()
        kept = MemoryStore("registry", registry.EVENTS)
        kept._events = self.registry._events[:head]
        kept._revisions = {event.stream: event.position for event in kept._events}
        began = v1.LogEpochBegan(epoch=next_epoch(self.registry.epochs, 0), previous_epoch=kept.epochs[-1])
        await begin_epoch(kept, began, Metadata("operator"))
        self.registry, self.tails[1] = kept, Tail(kept)
        await self.tails[1].start()
        database = Database(str(self._root / f"rows-{began.epoch}"))
        self.assignments = Projector(self.tails[1], AssignmentsProjection(), database)
        await self.assignments.start()
        await self.listen()

    async def record(self, payload: Message) -> int:
        """Append an event to the registry log; return its position."""
        event_id = uuid.uuid4().hex
        event = NewEvent("model/iris", payload, Metadata(actor="a-test"), event_id, event_id)
        (position,) = await self.registry.append([event])
        return position

    async def move(self, version: int, digest: str) -> int:
        """Append a move of the champion; return its position."""
        return await self.record(v1.AliasMoved(model="iris", alias="champion", to_version=version, to_digest=digest))

    async def acknowledged(self, revision: int) -> v1.AssignmentApplied | v1.AssignmentFailed:
        """Wait for the acknowledgement of a revision in the registry's epoch, and return it."""
        epoch = on_wire(self.registry.epochs[-1])
        async with asyncio.timeout(scaled(30)):
            async for batch in self.serving.subscribe():
                for payload in (event.data for event in batch):
                    if not isinstance(payload, v1.AssignmentApplied | v1.AssignmentFailed):
                        continue
                    if (payload.epoch, payload.revision) == (epoch, revision):
                        return payload
        raise AssertionError

    def event_types(self) -> list[str]:
        """Return the types of the events that pods appended, in order."""
        return [type(event.data).__name__ for event in self.serving._events]


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """Run services that listen."""
    running_pod = Services(tmp_path)
    await asyncio.gather(*(tail.start() for tail in running_pod.tails))
    await asyncio.gather(running_pod.pods.start(), running_pod.assignments.start())
    await running_pod.listen()
    yield running_pod
    await running_pod.stop()
    await asyncio.gather(running_pod.pods.stop(), running_pod.assignments.stop())
    await asyncio.gather(*(tail.stop() for tail in running_pod.tails))


class Pod:
    """A pod's process, and a client of it."""

    def __init__(
        self, process: asyncio.subprocess.Process, address: str, stub: "GRPCInferenceServiceAsyncStub"
    ) -> None:
        self.process = process
        self.address = address
        self._stub = stub

    async def predict(self, name: str = TARGET, version: str = "") -> ModelInferResponse:
        """Request a prediction for one row."""
        request = ModelInferRequest(model_name=name, model_version=version, raw_input_contents=[np.zeros(2).tobytes()])
        request.inputs.add(name="input", datatype="FP64", shape=[1, 2])
        return await self._stub.ModelInfer(request, timeout=scaled(10))

    async def served(self, **fields: str) -> tuple[int, int, int]:
        """Return the version and revision that answer, and the prediction, which is the version in these models."""
        response = await self.predict(**fields)
        (label,) = np.frombuffer(response.raw_output_contents[0], "<i8")
        return int(response.model_version), response.parameters["rollforward_revision"].int64_param, int(label)

    async def line(self) -> str:
        """Return the next line that the pod prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(scaled(30)):
            return (await self.process.stdout.readline()).decode().strip()

    async def stop(self) -> int:
        """Stop the pod gracefully; return its exit status."""
        self.process.terminate()
        async with asyncio.timeout(scaled(30)):
            return await self.process.wait()


@asynccontextmanager
async def pod(services: Services, cache: Path) -> AsyncIterator[Pod]:
    """Run a pod that serves the champion."""
    command = [sys.executable, "-c", START, services.address, str(cache), TARGET]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(scaled(60)):
            line = (await process.stdout.readline()).decode()
        address = line.split(" on ")[1].strip()
        async with aio.insecure_channel(address) as channel:
            yield Pod(process, address, GRPCInferenceServiceStub(channel))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def write_model(folder: Path, version: int) -> None:
    """Write a model that predicts its version, with an input example."""
    folder.mkdir()
    estimator = DummyClassifier(strategy="constant", constant=version).fit(np.zeros((1, 2)), [version])
    estimator.n_features_in_ = 2
    skops.io.dump(estimator, folder / "model.skops")
    (folder / "input_example.json").write_text(json.dumps([[0.0, 0.0]]))


@pytest.fixture
async def digests(services: Services, tmp_path: Path) -> list[str]:
    """Store versions 1 to 3 and return their digests, with an empty one for version 0; version 3 is a pickle."""

    def store() -> list[str]:
        for version in (1, 2):
            write_model(tmp_path / f"v{version}", version)
        (tmp_path / "v3").mkdir()
        (tmp_path / "v3" / "model.pkl").write_bytes(pickle.dumps({}))
        with Client(services.address) as client:
            return ["", *(client.artifacts.upload(tmp_path / f"v{version}")[0] for version in (1, 2, 3))]

    return await asyncio.to_thread(store)


async def test_pod_follows_moves_forward_and_back(services: Services, digests: list[str], tmp_path: Path) -> None:
    first = await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        assert await running_pod.served() == (1, first, 1)
        second = await services.move(2, digests[2])
        assert f"v2 (revision {second})" in await running_pod.line()
        assert await running_pod.served() == (2, second, 2)
        assert await running_pod.served(version="1") == (1, first, 1)
        back = await services.move(1, digests[1])
        applied = await services.acknowledged(back)
        assert isinstance(applied, v1.AssignmentApplied)
        assert (applied.version, applied.digest) == (1, digests[1])
        assert await running_pod.served() == (1, back, 1)
        assert await running_pod.stop() == 0
    assert services.event_types() == ["PodStarted", *["AssignmentApplied"] * 3, "PodStopped"]


async def test_pod_refuses_unloadable_version_and_keeps_serving(
    services: Services, digests: list[str], tmp_path: Path
) -> None:
    first = await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        for digest in (digests[3], f"sha256:{'0' * 64}"):
            failed = await services.acknowledged(await services.move(3, digest))
            assert isinstance(failed, v1.AssignmentFailed)
            assert failed.serving_version == 1
            assert await running_pod.served() == (1, first, 1)


async def test_removed_alias_is_not_served(services: Services, digests: list[str], tmp_path: Path) -> None:
    await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        removed = await services.record(v1.AliasRemoved(model="iris", alias="champion", from_version=1))
        await services.acknowledged(removed)
        with pytest.raises(aio.AioRpcError) as refused:
            await running_pod.predict()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        again = await services.move(1, digests[1])
        await services.acknowledged(again)
        assert await running_pod.served() == (1, again, 1)


async def test_pod_serves_during_outage_and_catches_up(services: Services, digests: list[str], tmp_path: Path) -> None:
    first = await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        await services.stop()
        newest = first
        for version in (2, 1, 2):
            newest = await services.move(version, digests[version])
        assert await running_pod.served() == (1, first, 1)
        await services.listen()
        applied = await services.acknowledged(newest)
        assert isinstance(applied, v1.AssignmentApplied)
        assert await running_pod.served() == (2, newest, 2)


async def test_pod_follows_log_that_lost_its_assignment(services: Services, digests: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kept = lost = await services.move(2, digests[2])
    for version in (1, 2, 1):
        lost = await services.move(version, digests[version])
    async with pod(services, cache) as running_pod:
        assert await running_pod.served() == (1, lost, 1)
        await services.lose_events(kept)
        # The served assignment does not exist in this log.
        applied = await services.acknowledged(kept)
        assert isinstance(applied, v1.AssignmentApplied)
        assert (applied.version, applied.epoch) == (2, services.registry.epochs[-1])
        assert await running_pod.served() == (2, kept, 2)
        emergency = await services.move(1, digests[1])
        assert emergency < lost
        await services.acknowledged(emergency)
        assert await running_pod.served() == (1, emergency, 1)
        assert await running_pod.stop() == 0
    await services.lose_events(kept)
    async with pod(services, cache) as running_pod:  # with a last known good state of the former epoch
        newest = await services.move(1, digests[1])
        await services.acknowledged(newest)
        assert await running_pod.served() == (1, newest, 1)


async def test_pod_keeps_serving_when_log_lost_its_alias(
    services: Services, digests: list[str], tmp_path: Path
) -> None:
    first = await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        await services.acknowledged(first)
        await services.lose_events(0)
        assert await running_pod.served() == (1, first, 1)
        again = await services.move(2, digests[2])
        await services.acknowledged(again)
        assert await running_pod.served() == (2, again, 2)


async def test_pod_without_epochs_is_rejected_after_first_epoch(services: Services, digests: list[str]) -> None:
    old = v1.WatchAssignmentsRequest(pod_id=uuid.uuid4().hex, targets=[v1.Target(model="iris", alias="champion")])
    first = await services.move(1, digests[1])
    await services.assignments.wait_for(first)
    async with aio.insecure_channel(services.address) as channel:
        stub = v1.ServingServiceStub(channel)
        async for step in stub.WatchAssignments(old):
            assert [assignment.revision for assignment in step.assignments] == [first]
            break
    await services.lose_events(first)
    async with aio.insecure_channel(services.address) as channel:
        stub = v1.ServingServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as refused:
            await anext(aiter(stub.WatchAssignments(old)))
        assert refused.value.code() is grpc.StatusCode.ABORTED


async def test_pod_starts_from_last_state_without_services(
    services: Services, digests: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = await services.move(1, digests[1])
    async with pod(services, cache) as running_pod:
        await services.acknowledged(first)
        assert await running_pod.stop() == 0
    await services.stop()
    async with pod(services, cache) as running_pod:
        assert await running_pod.served() == (1, first, 1)
        await services.listen()
        second = await services.move(2, digests[2])
        await services.acknowledged(second)
        assert await running_pod.served() == (2, second, 2)


async def test_requests_never_fail_or_go_back_while_alias_moves(
    services: Services, digests: list[str], tmp_path: Path
) -> None:
    first = last = await services.move(1, digests[1])
    async with pod(services, tmp_path / "cache") as running_pod:
        moved = asyncio.Event()
        revisions: list[int] = []

        async def keep_predicting() -> None:
            newest = 0
            while not moved.is_set():
                version, revision, label = await running_pod.served()
                assert version == label
                assert revision >= newest
                newest = revision
                revisions.append(revision)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(keep_predicting())
            for number in range(40):
                version = 2 - number % 2
                last = await services.move(version, digests[version])
                await services.acknowledged(last)
            moved.set()
        assert await running_pod.served() == (1, last, 1)
    assert len(set(revisions)) > 20
    assert first <= min(revisions)
