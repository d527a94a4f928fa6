"""A real pod in a process of its own, without any service: it boots from its last state and foreign clients use it."""

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

SERVER = "127.0.0.1:1"  # nobody is there
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
    """A pod's directory as a pod leaves it that served version 2 of iris@champion at revision 17."""
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
    """A pod's process, with its lines on `stdout`; stopped at the end if it has not stopped before."""
    command = [sys.executable, "-c", START, SERVER, address, str(cache), *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def address_of(process: "subprocess.Popen[str]") -> str:
    """Where a pod serves, as it says once it does."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    words, _, address = line.rpartition(" on ")
    assert words == "serving iris@champion v2 (revision 17)"
    return address


@pytest.fixture(scope="module")
def address(cache: Path) -> Iterator[str]:
    """Where a pod serves iris@champion."""
    with pod(cache, "iris@champion") as process:
        yield address_of(process)


def triton(address: str, *words: str, rows: Any = FEATURES) -> dict[str, Any]:
    """What NVIDIA's client is answered."""
    script = Path(__file__).with_name("triton_client.py")
    done = subprocess.run(
        [sys.executable, str(script), address, *words],
        input=json.dumps(np.asarray(rows).tolist()),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_foreign_client_gets_the_models_own_answers(address: str) -> None:
    answer = triton(address, "iris@champion", "2")
    assert answer == {
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
    ("words", "rows", "status"),
    [
        (["iris@other"], FEATURES, "StatusCode.NOT_FOUND"),
        (["iris", "1"], FEATURES, "StatusCode.NOT_FOUND"),
        (["iris"], FEATURES[:, :2], "StatusCode.INVALID_ARGUMENT"),
    ],
)
def test_a_foreign_client_is_told_whose_fault_it_is(address: str, words: list[str], rows: Any, status: str) -> None:
    assert triton(address, *words, rows=rows) == {"status": status}


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "ModelInfer"])
def test_bytes_that_are_no_message_are_refused_with_a_reason(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff", timeout=scaled(30))
    error = from_rpc_error(refused.value)
    assert (type(error), error.reason) == (InvalidRequest, "INVALID_MESSAGE")


def test_a_compressed_request_is_not_unpacked(address: str) -> None:
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError) as refused:
            call(bytes(1_000_000), timeout=scaled(30))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_are_on_the_same_port(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)


def test_a_pod_of_which_one_alias_waits_is_not_ready(cache: Path) -> None:
    with pod(cache, "iris@champion", "iris@unset") as process:
        answer = triton(address_of(process), "iris")
        assert (answer["live"], answer["ready"], answer["model_ready"]) == (True, False, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order(cache: Path, number: signal.Signals) -> None:
    with pod(cache, "iris@champion") as process:
        address_of(process)
        os.kill(process.pid, number)
        assert process.wait(scaled(20)) == 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "dns:///0.0.0.0:0", "ipv4:0.0.0.0:0"])
def test_an_address_that_other_machines_can_call_is_refused(cache: Path, address: str) -> None:
    with pod(cache, "iris@champion", address=address) as process:
        assert process.wait(20) == 2


def test_a_port_that_is_taken_is_refused(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pod(cache, "iris@champion", address=address) as process:
            assert process.wait(scaled(20)) == 1


@pytest.mark.parametrize("targets", [[], ["iris"], ["iris@"], ["@champion"]])
def test_what_is_no_alias_is_refused(cache: Path, targets: list[str]) -> None:
    with pod(cache, *targets) as process:
        assert process.wait(scaled(20)) == 2
