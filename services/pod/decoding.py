"""Decoding of inference requests: bytes that are no message are refused with a reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from grpc import aio
from typing_extensions import override

from eventstore import Rejected
from services.pod.inference import SERVICE
from services.rpc.context import Context
from services.rpc.decoding import decoded
from services.rpc.status import abort, status_of


class Decoding(aio.ServerInterceptor):
    """Decodes the requests of the inference service's methods, all of which are unary."""

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = cast("Any", await continuation(handler_call_details))
        if handler is None or not handler_call_details.method.startswith(f"/{SERVICE}/"):
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)

        async def call(data: bytes, context: Context) -> Any:
            try:
                request = decoded(data, handler.request_deserializer)
            except Rejected as refusal:
                return await abort(context, status_of(refusal))
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(call, None, handler.response_serializer)
