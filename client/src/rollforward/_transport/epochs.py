"""The epochs of the logs: a log starts another epoch when it loses events or is restored from a backup."""

from __future__ import annotations


class Epochs:
    """The epochs of the logs, as far as a connection knows them; 0 is the first. Its owner locks it.

    Attributes:
        read_in: By log, the epoch in which the caller's revisions were read.
    """

    def __init__(self) -> None:
        self.read_in: dict[str, int] = {}
        self._current: dict[str, int] = {}

    def note(self, log: str, epoch: int) -> bool:
        """Note the current epoch of a log; return whether it changed."""
        known = self._current.get(log)
        self._current[log] = epoch
        self.read_in.setdefault(log, epoch)
        return known != epoch if known is not None else epoch != 0

    def report(self, log: str) -> None:
        """Note that the caller knows a log's current epoch, and reads in it from now on."""
        if log in self._current:
            self.read_in[log] = self._current[log]

    def suffix(self, log: str) -> str:
        """Return the suffix for a position of a log in a call's metadata; empty in the first epoch."""
        epoch = self._current.get(log, 0)
        return f"@{epoch}" if epoch else ""
