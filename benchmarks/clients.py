"""What every system's client can do, and how a process that was given an endpoint connects to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

ALIAS = "live"


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

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a running system is. `kind` says how one talks to it; with `quick` a client has TCP acknowledge at once."""

    kind: str
    address: str
    quick: bool = False

    def quickened(self) -> Endpoint:
        """The same, for clients that have TCP acknowledge at once."""
        return replace(self, quick=True)


def connect(endpoint: Endpoint, actor: str = "bench") -> Client:
    """A new connection."""
    # A client process loads what its own system needs and no more.
    match endpoint.kind:
        case "rollforward":
            from benchmarks.systems.ours import SdkClient  # noqa: PLC0415

            return SdkClient(endpoint, actor)
        case "mlflow":
            from benchmarks.systems.mlflow import HttpClient  # noqa: PLC0415

            return HttpClient(endpoint)
        case "limit":
            from benchmarks.systems.limit import BareClient  # noqa: PLC0415

            return BareClient(endpoint)
        case _:
            raise ValueError(endpoint.kind)
