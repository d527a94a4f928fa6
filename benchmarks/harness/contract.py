"""The interface of every system's client, and the endpoint of a running system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

ALIAS = "live"

Labels = Callable[[int], tuple[Mapping[str, float], Mapping[str, str], Mapping[str, str]]]
"""The metrics, parameters and tags of a run, by its number."""


class CallFailed(Exception):
    """The system refused or failed a call."""


class Client(Protocol):
    """One connection to a system; used by one thread."""

    def prepare(self, model: str, versions: int) -> None:
        """Create a model with versions 1 to `versions`."""

    def move(self, model: str, alias: str, version: int) -> None:
        """Move an alias. Raises CallFailed."""

    def resolve(self, model: str, alias: str) -> None:
        """Ask which version an alias names. Raises CallFailed."""

    def log(self, points: int) -> None:
        """Log so many points of one metric of one run, in one call. Raises CallFailed."""

    def job(self, params: int, metrics: int) -> None:
        """Run a training job: a run with some parameters and calls that log a metric each. Raises CallFailed."""

    def search(self, metric: str, above: float, count: int) -> int:
        """Return the number of runs found with a metric above a value, best first. Raises CallFailed."""

    def history(self, run_id: str, metric: str) -> int:
        """Return the number of points read of a whole metric. Raises CallFailed."""

    def chart(self, run_id: str, metric: str, intervals: int) -> None:
        """Read a metric in a number of intervals. Raises CallFailed."""

    def write_runs(self, numbers: range, labels: Labels) -> None:
        """Write runs with the labels that `labels` returns for each number."""

    def write_points(self, metric: str, points: int) -> str:
        """Write a run with a number of points of a metric; return its id."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint of a running system.

    Attributes:
        kind: How one talks to it.
        address: Where.
        quick: Whether a client has TCP acknowledge at once.
        pids: Its programs, its database's too.
        database: Its database's URL, where it says.
    """

    kind: str
    address: str
    quick: bool = False
    pids: tuple[int, ...] = ()
    database: str = ""

    def quickened(self) -> Endpoint:
        """Return the same endpoint for clients that have TCP acknowledge at once."""
        return replace(self, quick=True)
