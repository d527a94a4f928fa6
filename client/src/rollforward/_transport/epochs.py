"""The epochs of the logs: a log that lost events, or was restored from a backup, is in another one afterwards."""

from __future__ import annotations


class Epochs:
    """The epochs of the logs as a connection knows them; 0 stands for the first. Its owner locks it.

    Attributes:
        read_in: By log, the epoch that the revisions which the caller holds were read in.
    """

    def __init__(self) -> None:
        self.read_in: dict[str, int] = {}
        self._current: dict[str, int] = {}

    def note(self, log: str, epoch: int) -> bool:
        """Take over the epoch that a log is in; whether another one was known."""
        known = self._current.get(log)
        self._current[log] = epoch
        self.read_in.setdefault(log, epoch)
        return known != epoch if known is not None else epoch != 0

    def tell(self, log: str) -> None:
        """Note that the caller knows of the epoch that a log is in: what it reads from now on is of that."""
        if log in self._current:
            self.read_in[log] = self._current[log]

    def suffix(self, log: str) -> str:
        """Return what follows a position of a log in the metadata of a call; nothing in the first epoch."""
        epoch = self._current.get(log, 0)
        return f"@{epoch}" if epoch else ""
