"""The peers' own clients, each in a program of its environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from benchmarks.harness.contract import Endpoint
from benchmarks.harness.figures import Round
from benchmarks.systems.peers import peers_program

_PROGRAMS = Path(__file__).parents[1] / "peers"
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


def own_client(endpoint: Endpoint, what: str, seconds: float) -> Round:
    """Run MLflow's client for some seconds, at least one call: "job" or "metric"."""
    return _round("mlflow", "mlflow_client.py", endpoint.address, what, str(seconds))


def trackio_log(calls: int, home: Path) -> Round:
    """Call Trackio's log a number of times; it keeps its data in `home`."""
    return _round("trackio", "trackio_log.py", str(calls), TRACKIO_DIR=str(home))


def _round(peer: str, name: str, *arguments: str, **environment: str) -> Round:
    command = [str(peers_program(peer, "python")), str(_PROGRAMS / name), *arguments]
    said = subprocess.run(
        command, env={**os.environ, **_QUIET, **environment}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    durations = json.loads(said.splitlines()[-1])
    return Round(sum(durations), durations)
