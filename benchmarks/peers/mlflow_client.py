"""MLflow's own client: training jobs and single metric calls. Print the seconds of each.

usage: mlflow_client.py ADDRESS job|metric SECONDS
"""

import json
import sys
import time

import mlflow
from mlflow import MlflowClient

_PARAMS = 10
_METRICS = 100


def _job(client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    for number in range(_PARAMS):
        client.log_param(run, f"param_{number}", number)
    for step in range(_METRICS):
        client.log_metric(run, "loss", 1 / (step + 1), step=step)
    client.set_terminated(run)


def main(address: str, what: str, seconds: float) -> None:
    """Repeat a call for some seconds, at least once."""
    mlflow.set_tracking_uri(f"http://{address}")
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.log_metric(run, "loss", 0.5)
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while not durations or time.perf_counter() < end:
        before = time.perf_counter()
        if what == "job":
            _job(client)
        else:
            client.log_metric(run, "loss", 0.5, step=len(durations))
        durations.append(time.perf_counter() - before)
    print(json.dumps(durations))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
