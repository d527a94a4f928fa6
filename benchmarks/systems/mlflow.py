"""MLflow's server: how to start it, and its cheapest client, plain HTTP over one connection."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.harness.contract import CallFailed, Endpoint, Labels
from benchmarks.systems import mlflow_rows
from benchmarks.systems.peers import peers_program
from benchmarks.systems.points import VALUE
from benchmarks.systems.processes import DidNotStart, silent_program, wait_until_quiet

WEBHOOK_LIST_SECONDS = 1
"""How long a worker of the server believes that it knows the webhooks."""

_READY_LIMIT = 180.0  # seconds
_KEPT_SECONDS = 3.0  # after five the server ends a connection that is idle
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Webhooks go to this machine, and a new one counts soon.
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOK_LIST_SECONDS),
}
_PREFIX = "/api/2.0/mlflow/"
_POINTS_A_PAGE = 25_000  # the most that the server gives
_POINTS_A_BATCH = 1_000  # the most that it takes


@contextmanager
def running(data: Path | None = None, database: str = "") -> Iterator[Endpoint]:
    """Run a server with its default settings and no data, on SQLite unless given another database."""
    del data
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        port = _free_port()
        url = database.replace("postgresql:", "postgresql+psycopg2:") or f"sqlite:///{home}/mlflow.db"
        command = [str(peers_program("mlflow", "mlflow")), "server", "--backend-store-uri", url, "--port", str(port)]
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        environment = {**_SETTINGS, "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key, "PATH": _path()}
        with silent_program(command, home, environment) as process:
            endpoint = Endpoint("mlflow", f"127.0.0.1:{port}", pids=(process.pid,), database=url)
            _wait_until_healthy(endpoint, process, home / "log")
            wait_until_quiet(process.pid)
            yield endpoint


class HttpClient:
    """One kept connection; `quick` has TCP acknowledge at once, which the server waits for between segments."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._http = http.client.HTTPConnection(endpoint.address, timeout=60)
        self._quick = endpoint.quick and hasattr(socket, "TCP_QUICKACK")
        self._database = endpoint.database
        self._run = ""
        self._used = 0.0

    @property
    def experiment(self) -> str:
        """The experiment whose runs are searched."""
        return mlflow_rows.EXPERIMENT

    def prepare(self, model: str, versions: int) -> None:
        """Create a model and its versions."""
        self.post("registered-models/create", {"name": model})
        for number in range(versions):
            self.post("model-versions/create", {"name": model, "source": f"s3://bench/{model}/{number}"})

    def move(self, model: str, alias: str, version: int) -> None:
        """Set an alias. Raises CallFailed."""
        self.post("registered-models/alias", {"name": model, "alias": alias, "version": str(version)})

    def resolve(self, model: str, alias: str) -> None:
        """Ask which version an alias names. Raises CallFailed."""
        self.get("registered-models/alias", {"name": model, "alias": alias})

    def log(self, points: int) -> None:
        """Log so many points of one metric. Raises CallFailed."""
        if not self._run:
            self._run = self.post("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        metric = {"key": "loss", "value": VALUE, "timestamp": 0, "step": 0}
        self.post("runs/log-batch", {"run_id": self._run, "metrics": [{**metric, "step": n} for n in range(points)]})

    def job(self, params: int, metrics: int) -> None:
        """Run a training job, one call after the other, as MLflow's client makes them. Raises CallFailed."""
        run = self.post("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        for number in range(params):
            self.post("runs/log-parameter", {"run_id": run, "key": f"param_{number}", "value": str(number)})
        for step in range(metrics):
            point = {"key": "loss", "value": 1 / (step + 1), "timestamp": 0, "step": step}
            self.post("runs/log-metric", {"run_id": run, **point})
        self.post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": 1})

    def search(self, metric: str, above: float, count: int) -> int:
        """Read a page of runs. Raises CallFailed."""
        statement = {
            "experiment_ids": [self.experiment],
            "filter": f"metrics.{metric} > {above}",
            "order_by": [f"metrics.{metric} DESC"],
            "max_results": count,
        }
        return len(self.post("runs/search", statement)["runs"])

    def history(self, run_id: str, metric: str) -> int:
        """Read all points of a metric, as many at once as the server allows. Raises CallFailed."""
        count, token = 0, ""
        while True:
            asked = {"run_id": run_id, "metric_key": metric, "max_results": str(_POINTS_A_PAGE), "page_token": token}
            page = self.get("metrics/get-history", {key: value for key, value in asked.items() if value})
            count += len(page.get("metrics", ()))
            token = page.get("next_page_token", "")
            if not token:
                return count

    def chart(self, run_id: str, metric: str, intervals: int) -> None:
        """Read a metric in about so many points, as MLflow's own pages do. Raises CallFailed."""
        asked = {"run_ids": run_id, "metric_key": metric, "max_results": str(intervals)}
        self.get("metrics/get-history-bulk-interval", asked)

    def write_runs(self, numbers: range, labels: Labels) -> None:
        """Write runs straight to the database: through the server it would take an hour."""
        mlflow_rows.write_runs(self._database, numbers, labels)

    def write_points(self, metric: str, points: int) -> str:
        """Write a run with a number of points; return its id. Raises CallFailed."""
        run = str(self.post("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"])
        for start in range(0, points, _POINTS_A_BATCH):
            steps = range(start, min(start + _POINTS_A_BATCH, points))
            batch = [{"key": metric, "value": step / points, "timestamp": 0, "step": step} for step in steps]
            self.post("runs/log-batch", {"run_id": run, "metrics": batch})
        return run

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Ask. Raises CallFailed."""
        return self._call("GET", f"{_PREFIX}{path}?{urlencode(query)}", None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command. Raises CallFailed."""
        return self._call("POST", _PREFIX + path, json.dumps(body).encode())

    def delete(self, path: str) -> None:
        """Delete. Raises CallFailed."""
        self._call("DELETE", _PREFIX + path, None)

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        if time.monotonic() - self._used > _KEPT_SECONDS:
            self._http.close()
        self._http.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        if self._quick:
            # The kernel forgets it, so it is said for every answer.
            self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        answer = self._http.getresponse()
        content = answer.read()
        self._used = time.monotonic()
        if answer.status != http.HTTPStatus.OK:
            raise CallFailed(f"{answer.status} {content[:200]!r}")
        found: dict[str, Any] = json.loads(content)
        return found


def _path() -> str:
    # The server starts helpers by name.
    return f"{peers_program('mlflow', 'mlflow').parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(endpoint: Endpoint, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_LIMIT
    while not _healthy(endpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DidNotStart(log.read_text(errors="replace")[-4000:])
        time.sleep(0.1)


def _healthy(endpoint: Endpoint) -> bool:
    connection = http.client.HTTPConnection(endpoint.address, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
