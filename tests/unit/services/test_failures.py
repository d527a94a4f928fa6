"""The line that a failed program prints, and descriptions of errors without a message."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from eventstore.error_messages import error_text
from eventstore.errors import Kind, LogLost, Loss, Rejected, StoreUnavailable
from eventstore.event import KnownPosition
from services.failures import report


class _UnknownAPIFault(Exception):
    """An error without a message."""


def caused_by(cause: Exception) -> Exception:
    """Return an error without a message that has a cause."""
    error = _UnknownAPIFault()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (TimeoutError(), "timed out"),
        (TimeoutError("timed out"), "timed out"),
        (MemoryError(), "out of memory"),
        (ConnectionResetError(), "connection reset error"),
        (httpx.ReadTimeout(""), "read timeout"),
        (asyncio.IncompleteReadError(b"", 4), "0 bytes read on a total of 4 expected bytes"),
        (KeyError("jetstream"), "missing key 'jetstream'"),
        (_UnknownAPIFault(), "unknown api fault"),
        (caused_by(OSError(28, "No space left on device")), "[Errno 28] No space left on device"),
    ],
)
def test_every_error_has_description(error: BaseException, text: str) -> None:
    assert error_text(error) == text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Rejected(Kind.INVALID, "INVALID_SETTING", "no such\nsetting"), "INVALID_SETTING: no such setting"),
        (StoreUnavailable("NATS is away"), "LOG_UNAVAILABLE: NATS is away"),
        (OSError(28, "No space left on device", "/data"), "[Errno 28] No space left on device: '/data'"),
        (TimeoutError(), "timed out"),
        (_UnknownAPIFault(), "unknown api fault"),
    ],
)
def test_failed_program_prints_one_line(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    report(error)
    assert capsys.readouterr() == ("", f"rollforward: {line}\n")


def test_reason_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    report(LogLost([Loss("registry", 3, KnownPosition("file x", 1, 5, "mark"))]))
    assert capsys.readouterr().err.startswith("rollforward: LOG_LOST: the registry log ends at position 3")
