"""Limits on what is under way: each kind of call has places of its own."""

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
def test_a_kind_that_is_full_refuses_and_the_others_do_not(kind: CallKind) -> None:
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


def test_files_are_left_beside_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (256, 1024, 65536, 1 << 20):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert max_connections() <= soft * 3 // 4


def test_the_limit_of_files_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, before[1]), before[1]))
        raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (soft, hard) == (min(65_536, before[1]), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def parts(*sent: bytes, stall: bool = False) -> AsyncIterator[bytes]:
    """A stream of requests that ends, or from which nothing more comes."""
    for part in sent:
        yield part
    if stall:
        await asyncio.Event().wait()


async def test_a_stream_that_stalls_is_ended_with_a_reason() -> None:
    decode = v1.UploadBlobRequest.FromString
    request = v1.UploadBlobRequest(chunk=b"x")
    stream = decoded_stream(parts(request.SerializeToString(), stall=True), decode, idle_seconds=0.01)
    assert await anext(stream) == request
    with pytest.raises(StoreUnavailable) as stalled:
        await anext(stream)
    assert stalled.value.reason == "UPLOAD_STALLED"


async def test_a_part_that_is_no_message_ends_a_stream() -> None:
    with pytest.raises(Rejected) as refused:
        _ = [part async for part in decoded_stream(parts(b"\xff"), v1.UploadBlobRequest.FromString)]
    assert refused.value.reason == "INVALID_MESSAGE"
