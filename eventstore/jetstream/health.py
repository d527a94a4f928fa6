"""Whether a server can still write: after an error of its disk it refuses every event, without an answer, until it is
started anew."""

from __future__ import annotations

import json

import nats.errors

from eventstore.errors import StoreUnavailable
from eventstore.jetstream.connection import connect

ANSWER_SECONDS = 5.0


async def ask_write_error(url: str, user: str, password: str) -> str:
    """What a server says of its system account's question that it cannot write; empty if it can.

    Raises:
        StoreUnavailable: It does not answer.
    """
    client = await connect(url, user, password, patience=ANSWER_SECONDS)
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING.HEALTHZ", b"{}", timeout=ANSWER_SECONDS)
    except (TimeoutError, nats.errors.Error) as error:
        raise StoreUnavailable(f"the system account of {url} does not answer: {error!r}") from error
    finally:
        await client.close()
    said = str(json.loads(answer.data)["data"].get("error", ""))
    return said if "write error" in said else ""
