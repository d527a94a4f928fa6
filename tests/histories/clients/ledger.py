"""The acknowledged entries of listings, for clients that then read them."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class Ledger:
    """Entries of listings, each with the position of the log at which it is there; safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, list[str]] = {}
        self._positions: dict[str, int] = {}

    def add(self, listing: str, entry: str, log: str, position: int) -> None:
        """Note that an entry was acknowledged at a position of a log."""
        with self._lock:
            self._entries.setdefault(listing, []).append(entry)
            self._positions[log] = max(self._positions.get(log, 0), position)

    def known(self, listing: str) -> tuple[tuple[str, ...], Mapping[str, int]]:
        """Return the entries of a listing, and the positions at which all of them are there."""
        with self._lock:
            return tuple(self._entries.get(listing, ())), dict(self._positions)
