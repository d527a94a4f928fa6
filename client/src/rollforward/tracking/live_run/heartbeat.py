"""The heartbeat of a live run, by which the tracking service notices a job that dies."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

import grpc

from rollforward import v1
from rollforward._transport.backoff import Backoff
from rollforward.errors import InvalidRequest, from_rpc_error

if TYPE_CHECKING:
    from rollforward._transport.connection import Connection

_MAX_PAUSE: Final = 5.0
# Errors that a retry does not fix.
_FINAL: Final = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED.name, "RUN_DELETED", "EXPERIMENT_DELETED", "CONNECTION_CLOSED", "INVALID_RUN_ID"}
)

_logger: Final = logging.getLogger("rollforward")


class Heartbeat:
    """A call that stays open while the job lives, and is repeated when it breaks.

    The kernel closes it when the process ends, even after a crash. Keeping it open needs no running Python code, so a
    job that computes in native code still counts as alive.
    """

    def __init__(self, connection: Connection, run_id: str) -> None:
        """Start the call in a background thread."""
        self._connection = connection
        self._request = v1.AttendRunRequest(run_id=run_id)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._call: grpc.Call | None = None
        self._backoff = Backoff(max_pause=_MAX_PAUSE)
        threading.Thread(target=self._work, name=f"rollforward-attend-{run_id[:8]}", daemon=True).start()

    def close(self) -> None:
        """End the call."""
        with self._lock:
            self._closing.set()
            if self._call is not None:
                self._call.cancel()

    def _work(self) -> None:
        while not self._closing.is_set() and self._attend():
            self._closing.wait(self._backoff.next_pause())

    def _attend(self) -> bool:
        """Keep one call open until it ends; return whether to try again."""
        try:
            with self._lock:
                if self._closing.is_set():
                    return False
                metadata = self._connection.metadata()
                call = self._connection.tracking.AttendRun(self._request, metadata=metadata)
                self._call = call
            for _ in call:
                self._backoff.reset()
        except grpc.RpcError as broken:
            error = from_rpc_error(broken)
            _logger.debug("heartbeat failed, run=%s, error=%s", self._request.run_id, error)
            return error.reason not in _FINAL
        except (ValueError, InvalidRequest):
            # The connection is closed.
            return False
        # The service ended the call because the run has ended.
        return False
