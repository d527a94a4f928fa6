"""Descriptions of NATS errors."""

from __future__ import annotations

import nats.errors
import pytest
from nats.js.errors import APIError, BadRequestError, NoStreamResponseError, ServiceUnavailableError

from eventstore.jetstream.appending.publishing import AnswerLost
from eventstore.jetstream.error_messages import NO_STREAM_RESPONSE, describe


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            BadRequestError(code=400, description="insufficient resources", err_code=10077),
            "insufficient resources (code 400, error 10077)",
        ),
        (APIError(code=429, description="too many", err_code=10210), "too many (code 429, error 10210)"),
        (APIError(), "api error (code unknown, error unknown)"),
        (ServiceUnavailableError(), "service unavailable error (code unknown, error unknown)"),
        (NoStreamResponseError(), NO_STREAM_RESPONSE),
        (nats.errors.TimeoutError(), "timed out"),
        (TimeoutError(), "timed out"),
        (nats.errors.ConnectionClosedError(), "connection closed"),
        (AnswerLost("gone"), "gone"),
        (nats.errors.Error(), "error"),
    ],
)
def test_every_error_has_description(error: Exception, text: str) -> None:
    assert describe(error) == text
