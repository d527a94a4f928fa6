"""What the transfers of blobs share: the bytes done so far, whether to stop, and for how long one is tried again."""

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

RESUMED: Final = 8 * 1024 * 1024
"""Blobs of so many bytes are worth the calls that it takes to go on with them, or to pass by the service."""

_THREADS: Final = 4
# A transfer may take a call's time, and what it would take at this many bytes a second.
_SLOWEST: Final = 256 * 1024


class Stopped(Exception):
    """Another transfer failed, so that this one need not go on."""


class Transfer:
    """The transfer of one artifact over a connection: many blobs, by several threads.

    `direct` holds as long as the store takes and gives blobs past the service.

    Raises:
        InvalidRequest: INVALID_SETTING when ROLLFORWARD_DIRECT is neither "on" nor "off".
    """

    def __init__(self, link: Connection, total: int, progress: Progress | None) -> None:
        self.link = link
        self.direct = _wants_direct()
        self._stopped = threading.Event()
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more are done, or fewer when it is below 0. Raises Stopped."""
        self._go_on()
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)

    def run(self, work: Callable[[str], None], digests: Iterable[str]) -> None:
        """Do this work for each blob. Raises what the first that failed raised."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="rollforward-transfer") as pool:
            futures = [pool.submit(work, digest) for digest in digests]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                # On Ctrl-C too: what has not begun does not begin, and what has stops at its next chunk.
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def insist(self, attempt: Callable[[float | None], None], size: int, arrived: Callable[[], int]) -> None:
        """Attempt to transfer so many bytes in the seconds given, again while the service is out of reach.

        It is given up when nothing more `arrived` for as long as a call may take. Raises the RollforwardError of the
        last attempt, or Stopped.
        """

        def once(_: float | None) -> None:
            self._go_on()
            attempt(Backoff(self.allowance(size)).remaining())

        while True:
            before = arrived()
            try:
                return self.link.retry(once)
            except Unavailable as error:
                if error.reason == "BLOB_STORE_FULL" or arrived() <= before:
                    raise

    def allowance(self, size: int) -> float:
        """How many seconds the transfer of so many bytes may take."""
        return self.link.timeout + size / _SLOWEST

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def mismatch(digest: str) -> InternalError:
    """Return the error for stored bytes that are damaged."""
    return InternalError(
        "DIGEST_MISMATCH", f"what is stored as {digest} is not what that digest names", {"digest": digest}
    )


def _wants_direct() -> bool:
    word = os.environ.get("ROLLFORWARD_DIRECT") or "on"
    if word not in {"on", "off"}:
        message = f"ROLLFORWARD_DIRECT is on or off, not {word!r}"
        raise InvalidRequest("INVALID_SETTING", message, {"name": "ROLLFORWARD_DIRECT"})
    return word == "on"
