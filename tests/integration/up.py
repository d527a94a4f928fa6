"""All services as `up` runs them, in their own process on free ports, with a client that checks rejections."""

from __future__ import annotations

import hashlib
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from rollforward import v1
from rollforward.errors import RollforwardError, epochs_in, from_rpc_error
from tests.e2e.program import Program
from tests.timeouts import scaled

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
Headers = Sequence[tuple[str, str]]

SECONDS = scaled(30.0)
ACTOR = (("rollforward-actor", "Zo%C3%AB"), ("rollforward-correlation-id", "together"))


def new_id() -> str:
    """Return a new id."""
    return uuid.uuid4().hex


class ReadYourWritesInterceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """An interceptor that makes each call wait for the positions of earlier commands, unless the call sets its own."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.epochs: dict[str, int] = {}

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add the header, and record the position in the response."""
        call = continuation(self._with_seen(details), request)
        log = _LOGS.get(details.method.split("/")[1])
        if log and call.code() is grpc.StatusCode.OK and isinstance(at := getattr(call.result(), "position", 0), int):
            self.epochs.update(epochs_in(call.trailing_metadata()))
            self.seen[log] = max(self.seen.get(log, 0), at)
        return call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add the header."""
        return continuation(self._with_seen(details), request)

    def _with_seen(self, details: Any) -> Any:
        headers = list(details.metadata or ())
        if self.seen and "rollforward-min-position" not in dict(headers):
            seen = ",".join(f"{log}={position}@{self.epochs.get(log, 1)}" for log, position in self.seen.items())
            headers.append(("rollforward-min-position", seen))
        return details._replace(metadata=headers)


_LOGS = {
    "rollforward.v1.RegistryService": "registry",
    "rollforward.v1.PolicyService": "registry",
    "rollforward.v1.TrackingService": "tracking",
    "rollforward.v1.LoggedModelService": "tracking",
}


class Client:
    """The stubs of all services at one address."""

    def __init__(self, address: str) -> None:
        options = [("grpc.enable_http_proxy", 0)]
        self.channel = grpc.intercept_channel(
            grpc.insecure_channel(address, options=options), ReadYourWritesInterceptor()
        )
        self.policies = v1.PolicyServiceStub(self.channel)
        self.registry = v1.RegistryServiceStub(self.channel)
        self.tracking = v1.TrackingServiceStub(self.channel)
        self.logged_models = v1.LoggedModelServiceStub(self.channel)
        self.serving = v1.ServingServiceStub(self.channel)
        self.artifacts = v1.ArtifactServiceStub(self.channel)
        self.webhooks = v1.WebhookServiceStub(self.channel)
        self.audit = v1.AuditServiceStub(self.channel)
        self.system = v1.SystemServiceStub(self.channel)

    def heads(self) -> dict[str, int]:
        """Return the last position of each log."""
        status = self.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
        return {log.name: log.head for log in status.logs}

    def refused(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        headers: Headers = (),
        seconds: float = SECONDS,
        *,
        recorded: int = 0,
    ) -> RollforwardError:
        """Return the error of a call that must be rejected.

        Fail if it is accepted, or if the logs have grown by anything but `recorded` events in the registry log.
        """
        heads = self.heads()
        heads["registry"] += recorded
        try:
            response = method(request, metadata=tuple(headers), timeout=seconds)
        except grpc.RpcError as error:
            assert self.heads() == heads
            return from_rpc_error(error)
        raise AssertionError(f"not refused: {response}")

    def upload(self, data: bytes = b"weights") -> str:
        """Upload an artifact of one file; return its digest."""
        blob = self._upload_blob(data)
        manifest = v1.Manifest(files=[v1.ManifestFile(path="model.bin", size_bytes=len(data), digest=blob)])
        return self.artifacts.CreateManifest(v1.CreateManifestRequest(manifest=manifest), timeout=SECONDS).digest

    def _upload_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        parts = [v1.UploadBlobRequest(digest=digest), v1.UploadBlobRequest(chunk=data)]
        self.artifacts.UploadBlob(iter(parts), timeout=SECONDS)
        return digest

    def new_experiment(self) -> str:
        """Create an experiment; return its id."""
        request = v1.CreateExperimentRequest(name=new_id())
        return self.tracking.CreateExperiment(request, timeout=SECONDS).experiment_id

    def new_run(self) -> str:
        """Start a run in its own experiment; return its id."""
        run_id = new_id()
        experiment_id = self.new_experiment()
        headers_at_head = (("rollforward-min-position", f"tracking={self.heads()['tracking']}"),)
        request = v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id)
        self.tracking.StartRun(request, metadata=headers_at_head, timeout=SECONDS)
        return run_id

    def new_model(self, versions: int = 2) -> str:
        """Create a model with so many versions; return its name."""
        name, digest = f"model-{new_id()}", self.upload()
        for _ in range(versions):
            self.registry.RegisterVersion(v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS)
        return name

    def move(self, model: str, version: int, alias: str = "champion", headers: Headers = ACTOR) -> v1.MoveAliasResponse:
        """Move an alias."""
        request = v1.MoveAliasRequest(model=model, alias=alias, version=version, reason="because")
        return self.registry.MoveAlias(request, metadata=tuple(headers), timeout=SECONDS)


class Up(Client):
    """The services' process, and a client of it; it ends with the `with` block."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        data.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "services", "up", "--data", str(data)]
        command += [] if "--grpc" in options else ["--grpc", "127.0.0.1:0"]
        command += ["--http", "127.0.0.1:0", *options]
        self.program = Program(command, data.with_suffix(".log"))
        _, line = self.program.line(" listens on ")
        match = re.search(r"listens on (\S+) and (\S+)$", line)
        assert match, line
        self.address, self.http = match[1], match[2]
        super().__init__(self.address)

    @cached_property
    def pid(self) -> int:
        """Return the process id."""
        return self.program.pid


@contextmanager
def up(data: Path, *options: str) -> Iterator[Up]:
    """Run the services over a data directory."""
    services = Up(data, *options)
    try:
        yield services
    finally:
        services.channel.close()
        if services.program.running:
            services.program.terminate()
