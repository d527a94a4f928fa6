"""The Open Inference Protocol over gRPC: what a pod answers to those who want predictions."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
import structlog
from grpc import aio
from typing_extensions import override

from rollforward.inference import open_inference_pb2 as oip
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from services.pod import tensors
from services.pod.batcher import DeadlinePassed, QueueFull
from services.pod.models import PREDICT, Model
from services.pod.runtime import NotReady, NotServed, Runtime, Serving, VersionRefused
from services.pod.tensors import InvalidInput

SERVICE = "inference.GRPCInferenceService"
ALIAS = "rollforward_alias"
REVISION = "rollforward_revision"
MATRIX = "input"  # what metadata calls the one tensor of a model whose features have no names

_STATUSES: dict[type[Exception], tuple[grpc.StatusCode, str]] = {
    InvalidInput: (grpc.StatusCode.INVALID_ARGUMENT, ""),
    NotServed: (grpc.StatusCode.NOT_FOUND, ""),
    NotReady: (grpc.StatusCode.UNAVAILABLE, ""),
    VersionRefused: (grpc.StatusCode.FAILED_PRECONDITION, ""),
    QueueFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests wait for this version"),
    DeadlinePassed: (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the prediction began"),
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Context = aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")
Method = Callable[["InferenceServicer", Request, Any], Awaitable[Response]]


def _with_statuses(method: Method[Request, Response]) -> Method[Request, Response]:
    """Turn errors into gRPC statuses; an unexpected error is logged with an id, and only the id is sent."""

    async def answer(self: "InferenceServicer", request: Request, context: Context) -> Response:
        try:
            return await method(self, request, context)
        except tuple(_STATUSES) as error:
            code, message = _STATUSES[type(error)]
            await context.abort(code, message or str(error))
        except Exception:  # noqa: BLE001 - logged here, once
            error_id = uuid.uuid4().hex
            _log.exception("inference failed", error_id=error_id)
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error {error_id}")

    return answer


class InferenceServicer(GRPCInferenceServiceServicer):
    """Answers from the pod's runtime. A request is bound to one version when it is admitted and stays with it."""

    def __init__(self, runtime: Runtime, server_version: str) -> None:
        self._runtime = runtime
        self._server_version = server_version

    @override
    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    @override
    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._runtime.ready)

    @override
    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        try:
            self._runtime.admit(request.name, request.version)
        except (NotReady, NotServed):
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=True)

    @override
    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Context) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name="rollforward", version=self._server_version)

    @override
    @_with_statuses
    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Context) -> oip.ModelMetadataResponse:
        serving = self._runtime.admit(request.name, request.version)
        return _metadata(request.name, serving.loaded.model, self._runtime.versions(request.name))

    @override
    @_with_statuses
    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        serving = self._runtime.admit(request.model_name, request.model_version)
        model = serving.loaded.model
        outputs = _wanted(request, model)
        rows = model.arrange(tensors.decode(request))
        answers = await serving.loaded.lane.submit(rows, outputs, _deadline(context))
        response = _respond(request, serving)
        for name, array in answers.items():
            tensors.encode(response, name, array, raw=bool(request.raw_input_contents))
        return response


def _deadline(context: Context) -> float | None:
    # The stubs leave out that a call may have no deadline.
    remaining = cast("float | None", context.time_remaining())
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


def _wanted(request: oip.ModelInferRequest, model: Model) -> tuple[str, ...]:
    """Return the outputs asked for, each once; `predict` when none is, as the rest costs a second prediction."""
    names = tuple(dict.fromkeys(output.name for output in request.outputs)) or (PREDICT,)
    if unknown := [name for name in names if name not in model.outputs]:
        raise InvalidInput(f"unknown outputs {unknown}: expected some of {list(model.outputs)}")
    return names


def _respond(request: oip.ModelInferRequest, serving: Serving) -> oip.ModelInferResponse:
    response = oip.ModelInferResponse(
        model_name=request.model_name, model_version=str(serving.assignment.version), id=request.id
    )
    response.parameters[ALIAS].string_param = serving.target.alias
    response.parameters[REVISION].int64_param = serving.assignment.revision
    return response


def _metadata(name: str, model: Model, versions: list[int]) -> oip.ModelMetadataResponse:
    response = oip.ModelMetadataResponse(
        name=name, platform=model.platform, versions=[str(version) for version in versions]
    )
    for feature in model.features:
        response.inputs.add(name=feature, datatype="FP64", shape=[-1])
    if not model.features:
        response.inputs.add(name=MATRIX, datatype="FP64", shape=[-1, -1 if model.width is None else model.width])
    for output, (datatype, shape) in model.outputs.items():
        response.outputs.add(name=output, datatype=datatype, shape=shape)
    return response
