"""A training job that logs as fast as it can and records its progress, to be killed at any moment.

usage: training_job.py ADDRESS RUN_ID LIFE LEDGER

In its LIFE it logs the points (0, 0.0), (1, 1.0), ... of the metric "life-LIFE". LEDGER holds, as text, how many calls
have returned. SIGTERM lets it end the run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import rollforward as rf

EXPERIMENT = "training"
PAUSE_SECONDS = 0.002
WIDTH = 20


def main(address: str, run_id: str, life: str, ledger: str) -> None:
    """Log until told to end."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    noted = os.open(ledger, os.O_RDWR | os.O_CREAT)
    client = rf.Client(address, actor=f"job-{run_id}", timeout=60.0)
    run = client.runs.start(EXPERIMENT, run_id=run_id, resume=True)
    print("trains", flush=True)
    step = 0
    while not stopping.is_set():
        run.log_metric(f"life-{life}", float(step), step)
        step += 1
        os.pwrite(noted, f"{step:>{WIDTH}}".encode(), 0)
        time.sleep(PAUSE_SECONDS)
    run.finish()
    print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
