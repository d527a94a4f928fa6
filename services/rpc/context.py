"""The context of a call: its metadata, and the actor and reason of a command."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from eventstore import Metadata
from services.actors import check_claimed
from services.validation import check_prose, check_text

Context = grpc.aio.ServicerContext[Any, Any]


class Command(Protocol):
    """A command's request; most have a request id, many a reason."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802
        """Return the serialized request."""


def metadata(request: Command, context: Context) -> Metadata:
    """Return the metadata of a command: actor, reason, request id and tracing.

    Raises:
        Rejected: INVALID_ACTOR, ACTOR_RESERVED, INVALID_REASON or INVALID_REQUEST_ID.
    """
    headers = headers_of(context)
    actor = unquote(headers.get("rollforward-actor", "")) or "anonymous"
    reason, request_id = (str(getattr(request, name, "")) for name in ("reason", "request_id"))
    check_text(actor, "actor", 255, "INVALID_ACTOR")
    check_claimed(actor)
    check_prose(reason, "reason", 4000, "INVALID_REASON")
    check_text(request_id, "request id", 128, "INVALID_REQUEST_ID", min_length=0)
    return Metadata(
        actor=actor,
        reason=reason,
        request_id=request_id,
        request_digest=_digest(request) if request_id else "",
        correlation_id=headers.get("rollforward-correlation-id", "")[:128],
        traceparent=headers.get("traceparent", "")[:128],
    )


def _digest(request: Command) -> str:
    body = f"{type(request).__name__}\0".encode() + request.SerializeToString(deterministic=True)
    return hashlib.sha256(body).hexdigest()


def headers_of(context: Context) -> dict[str, str]:
    """Return the text metadata of a call, by key."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
