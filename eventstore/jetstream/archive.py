"""Snapshots of a stream as NATS makes them, with every position and time, and streams restored from them.

Source: the snapshot and restore of https://github.com/nats-io/nats-server (STREAM.SNAPSHOT, STREAM.RESTORE), which
`nats stream backup` and `nats stream restore` use.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from eventstore.errors import StoreUnavailable
from eventstore.jetstream.error_messages import describe

__all__ = ["NatsClient", "StreamArchive", "find_stream", "restore_stream", "snapshot_stream"]

ANSWER_SECONDS = 60.0
CHUNK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class StreamArchive:
    """What a stream's snapshot is of: its configuration and state, as NATS says them."""

    config: Mapping[str, Any]
    state: Mapping[str, Any]


async def find_stream(client: NatsClient, log: str) -> StreamArchive | None:
    """Return the configuration and state of a log's stream; None when there is none."""
    answer = await _ask(client, f"$JS.API.STREAM.INFO.rf-{log}", {})
    if answer.get("error", {}).get("code") == 404:
        return None
    _refuse(answer, log)
    return StreamArchive(answer["config"], answer["state"])


async def snapshot_stream(client: NatsClient, log: str) -> AsyncGenerator[StreamArchive | bytes]:
    """Yield the description of a snapshot, then its bytes in pieces; writers continue.

    Raises:
        StoreUnavailable: The stream is not there, or the snapshot broke off.
    """
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    try:
        ask = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
        answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.rf-{log}", ask)
        _refuse(answer, log)
        yield StreamArchive(answer["config"], answer["state"])
        while (message := await chunks.next_msg(ANSWER_SECONDS)).data:
            if message.reply:  # the next ones are sent when enough of these are acknowledged
                await client.publish(message.reply)
            yield message.data
        if (status := (message.headers or {}).get("Status", "204")) != "204":
            raise StoreUnavailable(f"the snapshot of the {log} log was interrupted: {status} {message.headers}")
    except (TimeoutError, nats.errors.Error) as error:
        raise StoreUnavailable(f"the snapshot of the {log} log was interrupted: {describe(error)}") from error
    finally:
        await chunks.unsubscribe()


async def restore_stream(
    client: NatsClient, log: str, archive: StreamArchive, pieces: AsyncIterator[bytes]
) -> StreamArchive:
    """Create a log's stream from a snapshot, and return what it is then; there must be none yet.

    The stream knows its duplicates only once NATS was started again.

    Raises:
        StoreUnavailable: NATS refuses the snapshot, or does not answer.
    """
    ask = {"config": dict(archive.config), "state": dict(archive.state)}
    answer = await _ask(client, f"$JS.API.STREAM.RESTORE.rf-{log}", ask)
    _refuse(answer, log)
    place = answer["deliver_subject"]
    async for piece in pieces:
        for start in range(0, len(piece), CHUNK_BYTES):
            taken = await _request(client, place, piece[start : start + CHUNK_BYTES])
            if taken.data and b"error" in taken.data:
                _refuse(json.loads(taken.data), log)
    done = json.loads((await _request(client, place, b"")).data)
    _refuse(done, log)
    return StreamArchive(done["config"], done["state"])


async def _ask(client: NatsClient, subject: str, request: Mapping[str, Any]) -> Any:
    return json.loads((await _request(client, subject, json.dumps(request).encode())).data)


async def _request(client: NatsClient, subject: str, data: bytes) -> Msg:
    try:
        return await client.request(subject, data, timeout=ANSWER_SECONDS)
    except (TimeoutError, nats.errors.Error) as error:
        raise StoreUnavailable(f"NATS does not respond to {subject}: {describe(error)}") from error


def _refuse(answer: Mapping[str, Any], log: str) -> None:
    if error := answer.get("error"):
        raise StoreUnavailable(
            f"NATS rejects the request for the {log} log: {error.get('description')} ({error.get('err_code')})"
        )
