"""The inference protocol over a real gRPC server.

Every response is a prediction, or a status that blames the right side.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from rollforward.inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from rollforward.inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from rollforward.v1 import Assignment
from rollforward.v1 import Target as TargetMessage
from services.pod.batcher import Batcher
from services.pod.inference import InferenceServicer
from services.pod.models import Model
from services.pod.runtime import Loaded, Outcome, Runtime, Target
from tests.timeouts import scaled

FEATURES, LABELS = load_iris(return_X_y=True)
ESTIMATOR = RandomForestClassifier(3, random_state=0).fit(FEATURES, LABELS)
TARGETS = [
    Target("iris", "champion"),
    Target("iris", "unset"),
    Target("waiting", "champion"),
    Target("broken", "champion"),
]


async def serve(started: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
    """Serve the estimator as version 3 of iris@champion until `stop` is set; the port goes into `started`."""

    async def load(assignment: Assignment) -> Loaded:
        if assignment.target.model == "broken":
            raise ValueError("no model file")
        model = Model(ESTIMATOR)
        return Loaded(assignment.digest, model, Batcher(model.predict))

    done = asyncio.Event()
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 2:
            done.set()

    runtime = Runtime(TARGETS, load, report)
    target = TargetMessage(model="iris", alias="champion")
    runtime.offer(Assignment(target=target, version=3, digest="sha256:3", revision=17))
    broken = TargetMessage(model="broken", alias="champion")
    runtime.offer(Assignment(target=broken, version=1, digest="sha256:1", revision=18))
    await done.wait()
    server = aio.server()
    add_GRPCInferenceServiceServicer_to_server(InferenceServicer(runtime, "1.2.3"), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    started.set_result(port)
    await stop.wait()
    await server.stop(None)
    await runtime.close()


@pytest.fixture(scope="module")
def stub() -> Iterator[GRPCInferenceServiceStub]:
    """Return a client of a server that runs in another thread."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ports: list[int] = []
    ready = threading.Event()

    async def main() -> None:
        started: asyncio.Future[int] = loop.create_future()
        serving = asyncio.create_task(serve(started, stop))
        ports.append(await started)
        ready.set()
        await serving

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ready.wait(scaled(30))
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        yield GRPCInferenceServiceStub(channel)
    loop.call_soon_threadsafe(stop.set)
    thread.join(scaled(10))
    loop.close()


def request_of(rows: Any, name: str = "iris", **fields: Any) -> ModelInferRequest:
    """Return a raw request of doubles."""
    array = np.asarray(rows, np.float64)
    request = ModelInferRequest(model_name=name, raw_input_contents=[array.tobytes()], **fields)
    request.inputs.add(name="input", datatype="FP64", shape=array.shape)
    return request


def status_of(call: Any, request: Any, **options: Any) -> grpc.StatusCode:
    """Return the status that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("name", ["iris", "iris@champion"])
@pytest.mark.parametrize("version", ["", "3"])
def test_raw_request_gets_raw_response(stub: GRPCInferenceServiceStub, name: str, version: str) -> None:
    response = stub.ModelInfer(request_of(FEATURES, name, model_version=version, id="mine"))
    assert (response.model_name, response.model_version, response.id) == (name, "3", "mine")
    assert response.parameters["rollforward_alias"].string_param == "champion"
    assert response.parameters["rollforward_revision"].int64_param == 17
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("predict", "INT64", [150])
    assert not output.HasField("contents")
    answer = np.frombuffer(response.raw_output_contents[0], "<i8")
    np.testing.assert_array_equal(answer, ESTIMATOR.predict(FEATURES))


def test_typed_request_gets_typed_response(stub: GRPCInferenceServiceStub) -> None:
    request = ModelInferRequest(model_name="iris")
    tensor = request.inputs.add(name="input", datatype="FP64", shape=[2, 4])
    tensor.contents.fp64_contents.extend(FEATURES[:2].ravel())
    request.outputs.add(name="predict_proba")
    request.outputs.add(name="predict")
    response = stub.ModelInfer(request)
    assert not response.raw_output_contents
    probabilities, labels = response.outputs
    assert (probabilities.name, list(probabilities.shape)) == ("predict_proba", [2, 3])
    expected = ESTIMATOR.predict_proba(FEATURES[:2]).ravel()
    np.testing.assert_array_equal(probabilities.contents.fp64_contents, expected)
    assert list(labels.contents.int64_contents) == ESTIMATOR.predict(FEATURES[:2]).tolist()


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("other", "", grpc.StatusCode.NOT_FOUND),
        ("iris@other", "", grpc.StatusCode.NOT_FOUND),
        ("", "", grpc.StatusCode.NOT_FOUND),
        ("iris", "2", grpc.StatusCode.NOT_FOUND),
        ("iris", "latest", grpc.StatusCode.NOT_FOUND),
        ("iris@unset", "", grpc.StatusCode.UNAVAILABLE),
        ("waiting", "", grpc.StatusCode.UNAVAILABLE),
        ("broken", "", grpc.StatusCode.FAILED_PRECONDITION),
        ("broken@champion", "", grpc.StatusCode.FAILED_PRECONDITION),
        ("broken", "1", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_status_tells_why_model_is_not_served(
    stub: GRPCInferenceServiceStub, name: str, version: str, code: grpc.StatusCode
) -> None:
    assert status_of(stub.ModelInfer, request_of(FEATURES, name, model_version=version)) is code
    assert status_of(stub.ModelMetadata, ModelMetadataRequest(name=name, version=version)) is code
    assert not stub.ModelReady(ModelReadyRequest(name=name, version=version)).ready


def test_invalid_request_is_rejected(stub: GRPCInferenceServiceStub) -> None:
    unknown_output = request_of(FEATURES)
    unknown_output.outputs.add(name="transform")
    both_forms = request_of(FEATURES)
    both_forms.inputs[0].contents.fp64_contents.append(1.0)
    no_inputs = ModelInferRequest(model_name="iris")
    wrong_type = request_of(FEATURES)
    wrong_type.inputs[0].datatype = "DOUBLE"
    for request in (unknown_output, both_forms, no_inputs, wrong_type, request_of(FEATURES[:, :3])):
        assert status_of(stub.ModelInfer, request) is grpc.StatusCode.INVALID_ARGUMENT


def test_expired_request_is_not_predicted(stub: GRPCInferenceServiceStub) -> None:
    code = status_of(stub.ModelInfer, request_of(FEATURES), timeout=-1.0)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_server_describes_itself_and_its_models(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(ServerLiveRequest()).live
    assert not stub.ServerReady(ServerReadyRequest()).ready
    assert stub.ModelReady(ModelReadyRequest(name="iris")).ready
    assert stub.ServerMetadata(ServerMetadataRequest()).version == "1.2.3"
    metadata = stub.ModelMetadata(ModelMetadataRequest(name="iris"))
    assert list(metadata.versions) == ["3"]
    assert [(tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [("FP64", [-1, 4])]
    assert [(tensor.name, tensor.datatype) for tensor in metadata.outputs] == [
        ("predict", "INT64"),
        ("predict_proba", "FP64"),
    ]


tensors = st.builds(
    ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["input", "x", ""]),
    datatype=st.sampled_from(["FP64", "FP32", "BYTES", "INT64", "BOOL", "", "fp64"]),
    shape=st.lists(st.sampled_from([1, 2, 4]) | st.integers(-(2**63), 2**63 - 1), max_size=4),
)
requests = st.builds(
    ModelInferRequest,
    model_name=st.sampled_from(["iris", "iris@champion", "waiting", "@"]) | st.text(max_size=5),
    model_version=st.sampled_from(["", "3"]) | st.text(max_size=3),
    inputs=st.lists(tensors, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=40) | st.just(bytes(32)), max_size=3),
)
EXPECTED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_random_requests_never_fail_with_internal_error(
    stub: GRPCInferenceServiceStub, request: ModelInferRequest
) -> None:
    try:
        stub.ModelInfer(request)
    except grpc.RpcError as error:
        assert error.code() in EXPECTED  # noqa: PT017 - a response is valid, too
