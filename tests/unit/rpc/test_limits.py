"""Limits on calls in progress: each kind of call has its own places."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from eventstore.errors import Rejected, StoreUnavailable
from rollforward import v1
from services.rpc.decoding import decoded_stream
from services.rpc.limits import MAX_CALLS, CallKind, Limiter, max_connections, raise_file_limit


@pytest.mark.parametrize("kind", CallKind)
def test_full_kind_rejects_calls_and_others_do_not(kind: CallKind) -> None:
    limiter = Limiter()
    with ExitStack() as stack:
        for _ in range(kind.limit):
            stack.enter_context(limiter.admitted(kind))
        with pytest.raises(StoreUnavailable) as refused, limiter.admitted(kind):
            pass
        assert refused.value.reason == kind.reason
        for other in set(CallKind) - {kind}:
            stack.enter_context(limiter.admitted(other))
    with limiter.admitted(kind):
        pass
    assert sum(kind.limit for kind in CallKind) < MAX_CALLS


def test_connections_leave_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (256, 1024, 65536, 1 << 20):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert max_connections() <= soft * 3 // 4


def test_file_limit_is_raised_to_allowed_maximum() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, before[1]), before[1]))
        raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (soft, hard) == (min(65_536, before[1]), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def parts(*sent: bytes, stall: bool = False) -> AsyncIterator[bytes]:
    """Yield the parts of a stream that then ends or stalls."""
    for part in sent:
        yield part
    if stall:
        await asyncio.Event().wait()


async def test_stalled_stream_ends_with_reason() -> None:
    decode = v1.UploadBlobRequest.FromString
    request = v1.UploadBlobRequest(chunk=b"x")
    stream = decoded_stream(parts(request.SerializeToString(), stall=True), decode, idle_seconds=0.01)
    assert await anext(stream) == request
    with pytest.raises(StoreUnavailable) as stalled:
        await anext(stream)
    assert stalled.value.reason == "UPLOAD_STALLED"


async def test_invalid_message_ends_stream() -> None:
    with pytest.raises(Rejected) as refused:
        _ = [part async for part in decoded_stream(parts(b"\xff"), v1.UploadBlobRequest.FromString)]
    assert refused.value.reason == "INVALID_MESSAGE"
