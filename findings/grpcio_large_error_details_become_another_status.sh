#!/usr/bin/env bash
# grpcio 1.81.1, grpcio-status 1.81.1.
#
# A server aborts a call with NOT_FOUND and a google.rpc.Status of 20 KB in its details, far below the limit of 4 MB
# for messages. The client gets RESOURCE_EXHAUSTED: the details travel as metadata, whose size is limited to 16 KB,
# and the status is lost with them. At 6 KB the client gets NOT_FOUND. Between the soft limit of 8 KB and the hard one
# it is chance.
#
# Seen: "6 KB of details: NOT_FOUND", "20 KB of details: RESOURCE_EXHAUSTED".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'grpcio==1.81.1' 'grpcio-status==1.81.1'
"$folder/venv/bin/python" - <<'PY'
import asyncio

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status


async def refuse(request: bytes, context: aio.ServicerContext) -> bytes:
    detail = any_pb2.Any(type_url="type.googleapis.com/x", value=b"x" * int(request))
    status = rpc_status.to_status(status_pb2.Status(code=code_pb2.NOT_FOUND, message="gone", details=[detail]))
    context.set_trailing_metadata(status.trailing_metadata)
    await context.abort(status.code, status.details)


async def main() -> None:
    server = aio.server()
    method = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s.S", {"M": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for size, expected in ((6_000, grpc.StatusCode.NOT_FOUND), (20_000, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            try:
                await channel.unary_unary("/s.S/M")(str(size).encode())
            except aio.AioRpcError as error:
                print(f"{size // 1000} KB of details: {error.code().name}")
                assert error.code() is expected, error
    await server.stop(None)


asyncio.run(main())
PY
echo "as described"
