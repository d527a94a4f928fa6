"""rollforward through MLflow's REST API: the same plain HTTP client as MLflow's server has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.contract import Endpoint, Labels
from benchmarks.systems import ours
from benchmarks.systems.mlflow import HttpClient
from benchmarks.systems.ours import SdkClient


@contextmanager
def running(data: Path | None = None) -> Iterator[Endpoint]:
    """Run all services in one process, and yield where HTTP listens; `database` is where gRPC does."""
    with ours.running(data, http="127.0.0.1:0") as endpoint:
        grpc, _, http = endpoint.address.partition(" and http://")
        yield replace(endpoint, kind="rollforward-rest", address=http, database=grpc)


class RestClient(HttpClient):
    """One kept connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._sdk = SdkClient(Endpoint("rollforward", endpoint.database), "bench")

    @property
    def experiment(self) -> str:
        """The experiment whose runs are searched."""
        return self._sdk.experiment()

    def write_runs(self, numbers: range, labels: Labels) -> None:
        """Write runs with the labels that `labels` returns for each number."""
        self._sdk.write_runs(numbers, labels)

    def close(self) -> None:
        """Let go of the connections."""
        super().close()
        self._sdk.close()
