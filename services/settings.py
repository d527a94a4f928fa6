"""The settings of a process, read once, when it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eventstore import Kind, Rejected

_TEXTS = (
    "grpc",
    "http",
    "nats",
    "nats_user",
    "nats_password",
    "nats_monitor",
    "database",
    "artifacts",
    "webhook_key",
    "actor",
)
_MANY = 2**31 - 1
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "nats_port": (0, 65535),
    "replicas": (1, 5),  # as many as NATS keeps at most
    "webhook_patience": (0, _MANY),
    "webhooks_allow_private": (0, 1),
    "attendance_patience": (1, _MANY),
    "direct_transfers": (0, 1),
    "snapshot_interval": (0, _MANY),
    "snapshot_events": (0, _MANY),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process.

    Attributes:
        services: Which services it runs.
        grpc: Where gRPC listens, ``host:port``; port 0 takes a free one.
        http: Where health, metrics and MLflow's REST API listen; empty for nowhere.
        http_may_move: Whether a later port is taken when that of `http` is in use.
        data: The data directory: embedded NATS, rows and artifacts unless they are placed elsewhere.
        nats: An outside server's URL, or several of one cluster with commas; empty for the embedded one.
        nats_user, nats_password: Its credentials, unless they stand in the URL.
        nats_monitor: The URL of the outside server's monitoring port, from which its flush setting is read.
        nats_port: The embedded server's port; 0 takes a free one.
        replicas: On how many NATS servers a new log is kept.
        database: A directory for SQLite, or ``postgresql://...``; empty for a place in `data`.
        artifacts: A directory or ``s3://bucket/prefix``; empty for a place in `data`.
        webhook_key: What the secrets of webhooks are derived from; empty for a file in `data`.
        webhook_patience: For how many seconds a change is sent to an endpoint that does not take it.
        webhooks_allow_private: Whether webhooks may be sent to addresses that are not public; 0 for no.
        attendance_patience: For how many seconds the job of a run may be silent before the run is lost; at least 1.
        snapshot_interval: How often it is seen to whether a snapshot of rows is due, in seconds; 0 for never.
        snapshot_events: How many events must have come since the last snapshot, at least.
        accept_log_loss: The logs whose loss of events is accepted at this start.
        actor: Who runs it, as an event that begins an epoch names them; empty for the operating system's user.
        direct_transfers: Whether clients may transfer artifacts straight to and from an S3 store; 0 for no.
        insecure: Whether it may listen where other machines can call, although it knows no caller.
    """

    services: tuple[str, ...] = ()
    grpc: str = "127.0.0.1:50051"
    http: str = ""
    http_may_move: bool = False
    data: Path = Path("rollforward-data")
    nats: str = ""
    nats_user: str = ""
    nats_password: str = field(default="", repr=False)
    nats_monitor: str = ""
    nats_port: int = 0
    replicas: int = 1
    database: str = ""
    artifacts: str = ""
    webhook_key: str = field(default="", repr=False)
    webhook_patience: int = 72 * 3600
    webhooks_allow_private: int = 0
    attendance_patience: int = 60
    direct_transfers: int = 1
    snapshot_interval: int = 600
    snapshot_events: int = 10_000
    accept_log_loss: tuple[str, ...] = ()
    actor: str = ""
    insecure: bool = False

    @property
    def database_location(self) -> str:
        """Where the rows live."""
        return self.database or str(self.data / "rows")

    @property
    def keeps_files(self) -> bool:
        """Whether the process cannot run without its data directory; snapshots alone are no reason."""
        own_log_or_rows = not self.nats or "://" not in self.database
        own_artifacts = "tracking" in self.services or ("registry" in self.services and not self.artifacts)
        own_key = "webhooks" in self.services and not self.webhook_key
        return own_log_or_rows or own_artifacts or own_key

    @property
    def artifacts_location(self) -> str:
        """Where the artifacts live."""
        return self.artifacts or str(self.data / "artifacts")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Return the settings of ``ROLLFORWARD_*`` variables; all others have their defaults.

    Raises:
        Rejected: INVALID_SETTING.
    """
    text = {
        name: environment[f"ROLLFORWARD_{name.upper()}"]
        for name in _TEXTS
        if environment.get(f"ROLLFORWARD_{name.upper()}")
    }
    numbers = {
        name: _number(f"ROLLFORWARD_{name.upper()}", environment)
        for name in _BOUNDS
        if environment.get(f"ROLLFORWARD_{name.upper()}")
    }
    for name, number in numbers.items():
        _check_bounds(f"ROLLFORWARD_{name.upper()}", number, _BOUNDS[name])
    level = environment.get("ROLLFORWARD_LOG", "").upper()
    if level and level not in logging.getLevelNamesMapping():
        message = f"invalid ROLLFORWARD_LOG {level.lower()!r}: expected debug, info, warning, error or critical"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", message, name="ROLLFORWARD_LOG")
    data = Path(environment.get("ROLLFORWARD_DATA") or "rollforward-data")
    return Settings(data=data, **text, **numbers)  # type: ignore[arg-type]


def _check_bounds(name: str, number: int, bounds: tuple[int, int]) -> None:
    smallest, largest = bounds
    if not smallest <= number <= largest:
        message = f"invalid {name} {number}: expected a whole number from {smallest} to {largest}"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", message, name=name)


def _number(name: str, environment: Mapping[str, str]) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        message = f"invalid {name} {environment[name]!r}: expected a whole number"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", message, name=name) from error
