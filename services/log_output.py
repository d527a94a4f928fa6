"""The log lines of a process: their form, and where they are written."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog


def configure_logging() -> None:
    """Log to stderr: text on a terminal, else one JSON object a line, at the level of ROLLFORWARD_LOG."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not terminal else structlog.processors.StackInfoRenderer(),
            _escape_controls,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping().get(os.environ.get("ROLLFORWARD_LOG", "info").upper(), logging.INFO)
        ),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _UnfailingStream(sys.stderr))),
    )


def _escape_controls(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control sequences of terminals: names and reasons are written by callers."""
    for key, value in fields.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            kept = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)
            fields[key] = "".join(kept)
    return fields


class _UnfailingStream(io.TextIOBase):
    """A stream that ignores write errors: a full disk of the log must not fail the calls that log."""

    def __init__(self, place: TextIO) -> None:
        super().__init__()
        self._place = place

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._place.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._place.flush()
