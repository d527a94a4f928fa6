#!/usr/bin/env bash
# mlflow 3.17.2, its server on SQLite.
#
# A field of a request whose value MLflow's server cannot read is left out, not refused, when it is inside a list or an
# enumeration: the request is answered with 200. A point in runs/log-batch whose value is a text is stored as 0.0 at time
# 0 (the other fields of the point are lost with it), while the same point in runs/log-metric is refused with 400. A
# status that does not exist, in runs/update, changes nothing and is answered with the run. A run_view_type that does
# not exist, in runs/search, finds the active runs.
#
# Seen: "log-metric with a text: 400 INVALID_PARAMETER_VALUE", "log-batch with a text: 200, stored value 0.0 at time 0
# and step 0 (sent: time 1700000000000, step 7)", "update to EXPLODED: 200, status RUNNING", "search of SOME: 200, 1 run".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'mlflow==3.17.2'
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true PATH="$folder/venv/bin:$PATH"
python - "$folder" <<'PY'
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

FOLDER = sys.argv[1]


def start() -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{FOLDER}/db", "--artifacts-destination"]
    command += [f"{FOLDER}/files", "--port", str(port), "--workers", "1"]
    log = open(f"{FOLDER}/log", "wb")
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return server, port
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server did not start")


def ask(port: int, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = path if path == "/health" else f"/api/2.0/mlflow/{path}"
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data.startswith(b"{") else {}


def show(port: int) -> None:
    run = ask(port, "POST", "runs/create", {"experiment_id": "0", "run_name": "r"})[1]["run"]["info"]["run_id"]
    point = {"key": "m", "value": "x", "timestamp": 1700000000000, "step": 7}
    status, answer = ask(port, "POST", "runs/log-metric", {"run_id": run, **point})
    print(f"log-metric with a text: {status} {answer['error_code']}")
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    status, _ = ask(port, "POST", "runs/log-batch", {"run_id": run, "metrics": [point]})
    metrics = ask(port, "GET", f"runs/get?run_id={run}")[1]["run"]["data"]["metrics"]
    assert [metric["key"] for metric in metrics] == ["m"], metrics
    stored = metrics[0]
    print(
        f"log-batch with a text: {status}, stored value {stored['value']} at time {stored['timestamp']} and step"
        f" {stored['step']} (sent: time {point['timestamp']}, step {point['step']})"
    )
    assert (status, stored["value"], stored["timestamp"], stored["step"]) == (200, 0.0, 0, 0)
    status, answer = ask(port, "POST", "runs/update", {"run_id": run, "status": "EXPLODED"})
    print(f"update to EXPLODED: {status}, status {answer['run_info']['status']}")
    assert (status, answer["run_info"]["status"]) == (200, "RUNNING")
    status, answer = ask(port, "POST", "runs/search", {"experiment_ids": ["0"], "run_view_type": "SOME"})
    print(f"search of SOME: {status}, {len(answer['runs'])} run")
    assert (status, len(answer["runs"])) == (200, 1)


server, port = start()
try:
    show(port)
finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
PY
echo "as described"
