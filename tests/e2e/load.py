"""Load: clients that write, watch and predict at once until stopped."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np

from rollforward import Client, Conflict, Watch, v1
from rollforward.errors import from_rpc_error
from rollforward.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from services.pod.inference import REVISION
from tests.e2e.history import History, RecordingClient
from tests.e2e.program import until
from tests.timeouts import scaled

PAUSE_SECONDS = 0.02
ROW = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One request to a pod: when it was sent and answered (monotonic seconds; ns since 1970), and its result."""

    begun: float
    ended: float
    answered_at: int
    version: int = 0
    revision: int = 0
    label: int = 0
    failure: str = ""


class Load:
    """Clients on separate threads; `finish` lets each complete its call, and raises the first error."""

    def __init__(self, address: str) -> None:
        self.history = History()
        self.actors: set[str] = set()
        self.predictions: list[Prediction] = []
        self.uploads: dict[str, bytes] = {}
        self._address = address
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="load")
        self._working: list[Future[None]] = []
        self._connections: list[Client] = []

    def client(self, actor: str) -> RecordingClient:
        """Return a client with its own connection and actor."""
        self.actors.add(actor)
        self._connections.append(Client(self._address, actor=actor))
        return RecordingClient(self._connections[-1], self.history)

    def move(self, actor: str, model: str, alias: str) -> None:
        """Move an alias between versions 1 and 2 repeatedly, each time with its current revision."""
        self._repeat(_Mover(self.client(actor), model, alias).move)

    def log(self, actor: str, experiment_id: str) -> None:
        """Log metrics, and sometimes parameters, to one run repeatedly."""
        self._repeat(_Logger(self.client(actor), experiment_id).log)

    def register(self, actor: str, model: str, digest: str) -> None:
        """Register versions repeatedly."""
        client = self.client(actor)
        method = client.sdk.connection.registry.RegisterVersion
        self._repeat(lambda: client.send(method, v1.RegisterVersionRequest(model=model, digest=digest)))

    def upload(self, actor: str, experiment_id: str, directory: Path) -> None:
        """Upload files of random bytes and log them to one run repeatedly."""
        self._repeat(partial(self._upload, _Logger(self.client(actor), experiment_id), directory))

    def predict(self, address: str, model: str, row: Sequence[float] = ROW) -> None:
        """Ask a pod for a prediction repeatedly."""
        self._work(partial(self._predict, address, model, row))

    def finish(self) -> None:
        """Stop all load, and keep the clients' connections."""
        self._stopping.set()
        self._pool.shutdown()
        for working in self._working:
            working.result()

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def is_well(self) -> bool:
        """Return True; raise the error of any client so far."""
        for working in self._working:
            if working.done():
                working.result()
        return True

    def _work(self, job: Callable[[], None]) -> None:
        self._working.append(self._pool.submit(job))

    def _repeat(self, act: Callable[[], object]) -> None:
        def job() -> None:
            while not self._stopping.wait(PAUSE_SECONDS):
                act()

        self._work(job)

    def _upload(self, logger: _Logger, directory: Path) -> None:
        content = np.random.default_rng().bytes(200_000)
        path = directory / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        digest, name = logger.client.sdk.artifacts.upload(path)
        path.unlink()
        logger.log_artifact(name, digest)
        self.uploads[digest] = content

    def _predict(self, address: str, model: str, row: Sequence[float]) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(address, options=options) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not self._stopping.wait(0.002):
                self.predictions.append(ask(stub, model, row))


def ask(
    stub: GRPCInferenceServiceStub, model: str, row: Sequence[float] = ROW, seconds: float = scaled(30.0)
) -> Prediction:
    """Ask a pod once for a prediction; wait while nobody listens."""
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype="FP64", shape=[1, len(row)]).contents.fp64_contents.extend(row)
    begun = time.monotonic()
    try:
        response = stub.ModelInfer(request, timeout=seconds, wait_for_ready=True)
    except grpc.RpcError as error:
        failure = from_rpc_error(error)
        return Prediction(begun, time.monotonic(), time.time_ns(), failure=f"{failure.reason}: {failure.message}")
    return _prediction(begun, response)


def _prediction(begun: float, response: ModelInferResponse) -> Prediction:
    label = response.outputs[0].contents.int64_contents[0]
    revision = response.parameters[REVISION].int64_param
    return Prediction(begun, time.monotonic(), time.time_ns(), int(response.model_version), revision, label)


class _Mover:
    def __init__(self, client: RecordingClient, model: str, alias: str) -> None:
        self._client = client
        self._assignment = v1.Alias(model=model, alias=alias)

    def move(self) -> None:
        assigned = self._assignment
        request = v1.MoveAliasRequest(
            model=assigned.model, alias=assigned.alias, version=2 if assigned.version == 1 else 1
        )
        request.expected_revision = assigned.revision
        try:
            self._assignment = self._client.send(self._client.sdk.connection.registry.MoveAlias, request).alias
        except Conflict as conflict:
            if conflict.current is None or conflict.current.revision <= assigned.revision:
                raise
            self._assignment = conflict.current


class _Logger:
    def __init__(self, client: RecordingClient, experiment_id: str) -> None:
        self.client = client
        self._run_id = uuid.uuid4().hex
        self._step = 0
        request = v1.StartRunRequest(run_id=self._run_id, experiment_id=experiment_id, name=client.sdk.actor)
        client.send(client.sdk.connection.tracking.StartRun, request)

    def log(self) -> None:
        steps = np.arange(self._step, self._step + 10, dtype="<i8")
        request = v1.LogBatchRequest(run_id=self._run_id)
        series = {"steps": steps.tobytes(), "timestamps": steps.tobytes(), "values": (steps / 7.0).tobytes()}
        request.series.add(key="loss", **series)
        if self._step % 50 == 0:
            request.params[f"at-{self._step}"] = "reached"
        self._step += 10
        self.client.send(self.client.sdk.connection.tracking.LogBatch, request)

    def log_artifact(self, path: str, digest: str) -> None:
        request = v1.LogArtifactRequest(run_id=self._run_id, path=path, digest=digest)
        self.client.send(self.client.sdk.connection.tracking.LogArtifact, request)


class Watcher:
    """A watcher on its own thread: the state at its start, and the changes received since."""

    def __init__(self, connection: Client, reference: str = "", from_revision: int | None = None) -> None:
        self.changes: list[v1.AliasChange] = []
        self._watch: Watch = connection.aliases.watch(reference, from_revision=from_revision)
        self.began_at = from_revision if from_revision is not None else self._watch.position
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        self._following = self._pool.submit(self._follow)

    def _follow(self) -> None:
        for change in self._watch:
            self.changes.append(change)

    def expect(self, revision: int) -> None:
        """Wait until the watcher received the change of a revision, or a later one."""
        until(lambda: bool(self.changes) and self.changes[-1].revision >= revision, f"a change {revision}")

    def close(self) -> Sequence[v1.AliasChange]:
        """Stop the watch; return all changes received."""
        self._watch.close()
        self._pool.shutdown()
        self._following.result()
        return self.changes
