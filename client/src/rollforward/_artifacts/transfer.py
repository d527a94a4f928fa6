"""The transfer of an artifact's blobs: its progress, cancellation and retries."""

from __future__ import annotations

import os
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from rollforward._transport.backoff import Backoff
from rollforward.errors import InternalError, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rollforward._artifacts.trees import Progress
    from rollforward._transport.connection import Connection

RESUMABLE_BYTES: Final = 8 * 1024 * 1024
"""The minimum size of a blob, in bytes, for which resuming and direct transfers are worth their extra calls."""

_THREADS: Final = 4
# The timeout of a transfer is that of a call, plus its size at this rate in bytes per second.
_MIN_RATE: Final = 256 * 1024


class Stopped(Exception):
    """Raised in a transfer after another one failed."""


class Transfer:
    """The transfer of one artifact over a connection: many blobs, by several threads.

    `direct` is true until a transfer directly to or from the object store fails.

    Raises:
        InvalidRequest: INVALID_SETTING when ROLLFORWARD_DIRECT is neither "on" nor "off".
    """

    def __init__(self, connection: Connection, total: int, progress: Progress | None) -> None:
        self.connection = connection
        self.direct = _wants_direct()
        self._stopped = threading.Event()
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Add to the bytes done, or subtract. Raises Stopped."""
        self._check_stopped()
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)

    def run(self, work: Callable[[str], None], digests: Iterable[str]) -> None:
        """Do the work for each blob. Raises the error of the first that fails."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="rollforward-transfer") as pool:
            futures = [pool.submit(work, digest) for digest in digests]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                # Also on Ctrl-C: pending work is cancelled, and running work stops at its next chunk.
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def retry(self, attempt: Callable[[float | None], None], size: int, arrived: Callable[[], int]) -> None:
        """Attempt to transfer `size` bytes, and retry while the service is unreachable.

        Each attempt gets its timeout in seconds. Give up after an attempt in which no more bytes `arrived`. Raises the
        RollforwardError of the last attempt, or Stopped.
        """

        def once(_: float | None) -> None:
            self._check_stopped()
            attempt(Backoff(self.allowance(size)).remaining())

        while True:
            before = arrived()
            try:
                return self.connection.retry(once)
            except Unavailable as error:
                if error.reason == "BLOB_STORE_FULL" or arrived() <= before:
                    raise

    def allowance(self, size: int) -> float:
        """Return the timeout for a transfer, in seconds."""
        return self.connection.timeout + size / _MIN_RATE

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def mismatch(digest: str) -> InternalError:
    """Return the error for damaged stored bytes."""
    return InternalError(
        "DIGEST_MISMATCH", f"stored bytes of {digest} are damaged: their digest differs", {"digest": digest}
    )


def _wants_direct() -> bool:
    word = os.environ.get("ROLLFORWARD_DIRECT") or "on"
    if word not in {"on", "off"}:
        message = f"invalid ROLLFORWARD_DIRECT {word!r}: expected 'on' or 'off'"
        raise InvalidRequest("INVALID_SETTING", message, {"name": "ROLLFORWARD_DIRECT"})
    return word == "on"
