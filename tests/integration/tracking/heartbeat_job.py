"""The job of a run, as a program: it sends heartbeats in one of several ways until it is killed.

Arguments: mode ("attends", "blocks" or "logs"), the service's address, the run's id.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time

import grpc

from rollforward import v1

PAUSE = 0.1
BLOCKED_SECONDS = 6
POINT = v1.Series(key="loss", steps=bytes(8), timestamps=bytes(8), values=bytes(8))


def attend(service: v1.TrackingServiceStub, run_id: str, began: threading.Event) -> None:
    """Keep a heartbeat call open, reconnecting until the run ends; print when it is accepted."""
    ended = False
    while not ended:
        try:
            for response in service.AttendRun(v1.AttendRunRequest(run_id=run_id), wait_for_ready=True):
                print(f"attended, timeout={response.patience_seconds} s", flush=True)
                began.set()
            ended = True
        except grpc.RpcError as error:
            print(f"call ended: {error.code().name}", flush=True)
            time.sleep(PAUSE)
    print("run ended", flush=True)


def block(service: v1.TrackingServiceStub, run_id: str) -> None:
    """Send heartbeats on a thread while another thread holds the interpreter's lock for long."""
    began = threading.Event()
    thread = threading.Thread(target=attend, args=(service, run_id, began), daemon=True)
    thread.start()
    began.wait()
    print("blocked", flush=True)
    ctypes.PyDLL(None).sleep(BLOCKED_SECONDS)  # unlike CDLL, it keeps the lock
    print("awake", flush=True)
    thread.join()


def log(service: v1.TrackingServiceStub, run_id: str) -> None:
    """Log points repeatedly; print after the first one that is accepted after each outage."""
    reached = False
    while True:
        try:
            service.LogBatch(v1.LogBatchRequest(run_id=run_id, series=[POINT]), timeout=2)
            if not reached:
                print("logged", flush=True)
            reached = True
        except grpc.RpcError:
            reached = False
        time.sleep(PAUSE)


if __name__ == "__main__":
    mode, address, run = sys.argv[1:]
    options = [("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
    options += [("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(address, options=options) as channel:
        service = v1.TrackingServiceStub(channel)
        match mode:
            case "attends":
                attend(service, run, threading.Event())
            case "blocks":
                block(service, run)
            case "logs":
                log(service, run)
            case _:
                raise ValueError(mode)
