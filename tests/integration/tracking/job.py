"""The job of a run, as a program: it stays in touch with the service in one of several ways until it is killed.

Arguments: how ("attends", "blocks" or "logs"), the service's address, the run's id.
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
    """Keeps a call open, again and again until the run ends; says when it was answered."""
    ended = False
    while not ended:
        try:
            for answer in service.AttendRun(v1.AttendRunRequest(run_id=run_id), wait_for_ready=True):
                print(f"attended with a patience of {answer.patience_seconds} s", flush=True)
                began.set()
            ended = True
        except grpc.RpcError as error:
            print(f"call ended: {error.code().name}", flush=True)
            time.sleep(PAUSE)
    print("run ended", flush=True)


def block(service: v1.TrackingServiceStub, run_id: str) -> None:
    """Attends on a thread, while another one holds the interpreter's lock for long."""
    began = threading.Event()
    thread = threading.Thread(target=attend, args=(service, run_id, began), daemon=True)
    thread.start()
    began.wait()
    print("blocked", flush=True)
    ctypes.PyDLL(None).sleep(BLOCKED_SECONDS)  # unlike CDLL it keeps the lock
    print("awake", flush=True)
    thread.join()


def log(service: v1.TrackingServiceStub, run_id: str) -> None:
    """Logs a point again and again, and tells of the first after each outage."""
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
    how, address, of = sys.argv[1:]
    options = [("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
    options += [("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(address, options=options) as channel:
        service = v1.TrackingServiceStub(channel)
        match how:
            case "attends":
                attend(service, of, threading.Event())
            case "blocks":
                block(service, of)
            case "logs":
                log(service, of)
            case _:
                raise ValueError(how)
