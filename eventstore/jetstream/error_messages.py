"""Texts of NATS errors: nats-py leaves many of them empty."""

from __future__ import annotations

from nats.js.errors import APIError, NoStreamResponseError

from eventstore.error_messages import error_text, kind_of

NO_STREAM_RESPONSE = "no server has the stream (it has no leader, or JetStream is starting)"


def describe(error: BaseException) -> str:
    """Return what an error says: of the API of JetStream its codes and description, else its text, or words for it."""
    if isinstance(error, NoStreamResponseError):
        return NO_STREAM_RESPONSE
    if isinstance(error, APIError):
        codes = f"code {error.code or 'unknown'}, error {error.err_code or 'unknown'}"
        return f"{error.description or kind_of(error)} ({codes})"
    if isinstance(error, TimeoutError):
        return "timed out"
    return error_text(error).removeprefix("nats: ")
