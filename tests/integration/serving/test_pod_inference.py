"""A real pod in its own process, without services: it starts from its last state and serves foreign clients."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import skops.io
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from rollforward._artifacts.manifests import build_tree, manifest_digest
from rollforward.errors import InvalidRequest, from_rpc_error
from rollforward.v1 import Assignment, Target
from services.pod.cache import LastKnownGood
from tests.timeouts import scaled

SERVER = "127.0.0.1:1"  # nothing listens there
START = """
import sys
from pathlib import Path
from services.pod.command import command
server, grpc, cache, *targets = sys.argv[1:]
sys.exit(command(*targets, server=server, grpc=grpc, cache=Path(cache)))
"""
FEATURES, LABELS = load_iris(return_X_y=True)
ESTIMATOR = RandomForestClassifier(5, random_state=0).fit(FEATURES, LABELS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the directory of a pod that served version 2 of iris@champion at revision 17."""
    root = tmp_path_factory.mktemp("cache")
    artifact = root / "artifact"
    artifact.mkdir()
    skops.io.dump(ESTIMATOR, artifact / "model.skops")
    (artifact / "input_example.json").write_text(json.dumps(FEATURES[:3].tolist()))
    digest = manifest_digest(build_tree(artifact).manifest)
    (root / "artifacts").mkdir()
    artifact.rename(root / "artifacts" / digest.removeprefix("sha256:"))
    assignment = Assignment(target=Target(model="iris", alias="champion"), version=2, digest=digest, revision=17)
    asyncio.run(LastKnownGood(root, SERVER).write([assignment]))
    return root


@contextmanager
def pod(cache: Path, *targets: str, address: str = "127.0.0.1:0") -> Iterator["subprocess.Popen[str]"]:
    """Run a pod, with its output on `stdout`; kill it at the end if it still runs."""
    command = [sys.executable, "-c", START, SERVER, address, str(cache), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def address_of(process: "subprocess.Popen[str]") -> str:
    """Return the address that a pod prints once it serves."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    message, _, address = line.rpartition(" on ")
    assert message == "serving iris@champion v2 (revision 17)"
    return address


@pytest.fixture(scope="module")
def address(cache: Path) -> Iterator[str]:
    """Run a pod that serves iris@champion and yield its address."""
    with pod(cache, "iris@champion") as process:
        yield address_of(process)


def triton(address: str, *arguments: str, rows: Any = FEATURES) -> dict[str, Any]:
    """Send a request with NVIDIA's client; return its result."""
    script = Path(__file__).with_name("triton_client.py")
    done = subprocess.run(
        [sys.executable, str(script), address, *arguments],
        input=json.dumps(np.asarray(rows).tolist()),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_foreign_client_gets_predictions_of_model(address: str) -> None:
    result = triton(address, "iris@champion", "2")
    assert result == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "inputs": [["FP64", [-1, 4]]],
        "id": "a-request",
        "version": "2",
        "revision": 17,
        "predict": ESTIMATOR.predict(FEATURES).tolist(),
        "predict_proba": ESTIMATOR.predict_proba(FEATURES).tolist(),
    }


@pytest.mark.parametrize(
    ("arguments", "rows", "status"),
    [
        (["iris@other"], FEATURES, "StatusCode.NOT_FOUND"),
        (["iris", "1"], FEATURES, "StatusCode.NOT_FOUND"),
        (["iris"], FEATURES[:, :2], "StatusCode.INVALID_ARGUMENT"),
    ],
)
def test_foreign_client_gets_status_of_error(address: str, arguments: list[str], rows: Any, status: str) -> None:
    assert triton(address, *arguments, rows=rows) == {"status": status}


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "ModelInfer"])
def test_invalid_message_is_rejected_with_reason(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff", timeout=scaled(30))
    error = from_rpc_error(refused.value)
    assert (type(error), error.reason) == (InvalidRequest, "INVALID_MESSAGE")


def test_compressed_request_is_not_decompressed(address: str) -> None:
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError) as refused:
            call(bytes(1_000_000), timeout=scaled(30))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_share_port(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)


def test_pod_with_unset_alias_is_not_ready(cache: Path) -> None:
    with pod(cache, "iris@champion", "iris@unset") as process:
        result = triton(address_of(process), "iris")
        assert (result["live"], result["ready"], result["model_ready"]) == (True, False, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_pod_gracefully(cache: Path, number: signal.Signals) -> None:
    with pod(cache, "iris@champion") as process:
        address_of(process)
        os.kill(process.pid, number)
        assert process.wait(scaled(20)) == 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "dns:///0.0.0.0:0", "ipv4:0.0.0.0:0"])
def test_public_address_is_refused(cache: Path, address: str) -> None:
    with pod(cache, "iris@champion", address=address) as process:
        assert process.wait(20) == 2


def test_port_in_use_is_refused(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pod(cache, "iris@champion", address=address) as process:
            assert process.wait(scaled(20)) == 1


@pytest.mark.parametrize("targets", [[], ["iris"], ["iris@"], ["@champion"]])
def test_invalid_target_is_refused(cache: Path, targets: list[str]) -> None:
    with pod(cache, *targets) as process:
        assert process.wait(scaled(20)) == 2
