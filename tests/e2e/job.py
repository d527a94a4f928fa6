"""Training jobs of several kinds that log the points 0, 1, 2... of a metric and report their progress."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import rollforward as rf

STEPS = 1_000_000


def report(text: str) -> None:
    """Print one line, flushed and whole."""
    os.write(1, f"{text}\n".encode())


def log_forever(run: rf.Run, key: str, pause: float = 0.0) -> None:
    """Log points, and report every fiftieth, until killed."""
    for step in range(STEPS):
        run.log_metric(key, step, step)
        if step % 50 == 49:
            report(f"{key} {step + 1}")
        time.sleep(pause)


def killed(run: rf.Run) -> None:
    """Log until killed."""
    run.log_params({"kind": "killed"})
    log_forever(run, "loss", 0.0002)


def ending(run: rf.Run) -> None:
    """Log until told to end."""
    for step in range(500):
        run.log_metric("loss", step, step)
    report("logged")
    while not Path(os.environ["JOB_MAY_END"]).exists():
        time.sleep(0.01)
    run.finish()
    report("finished")


def forking(run: rf.Run) -> None:
    """Log from four threads, and from two forked processes that outlive their parent."""
    # While threads log: locks that they hold at the fork stay locked in the child.
    threads = [threading.Thread(target=log_forever, args=(run, f"thread-{n}", 0.001), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2):
        if os.fork() == 0:
            log_forever(run, f"child-{number}", 0.001)
    threads[0].join()


def flushing(run: rf.Run) -> None:
    """Log from a forked process, which flushes and leaves the block; then the parent leaves it."""
    run.log_metric("loss", 0, 0)
    child = os.fork()
    run.log_metric("loss" if child else "child", 1, 1)
    if child == 0:
        run.flush()
        report("child delivered")
        run.finish()
        os._exit(0)
    os.waitpid(child, 0)
    run.finish()
    report("finished")


def work(run: rf.Run, number: int) -> None:
    """Log to the run passed to a spawned worker."""
    with run:
        for step in range(100):
            run.log_metric(f"worker-{number}", step, step)


def spawning(run: rf.Run) -> None:
    """Pass the run to two spawned processes."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(run, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    run.finish()
    report("finished")


def forgetful(run: rf.Run) -> None:
    """Log, and exit without ending the run."""
    run.log_metric("loss", 1.0)


def full(run: rf.Run) -> None:
    """Log while the journal's file cannot grow, as on a full disk, and when it can again."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard_limit))
    for step in range(20_000):
        run.log_metric("loss", step, step)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard_limit, hard_limit))
    for step in range(20_000, 21_000):
        run.log_metric("loss", step, step)
    run.finish()
    report("finished")


KINDS: dict[str, Callable[[rf.Run], None]] = {
    one.__name__: one for one in (killed, ending, forking, flushing, spawning, forgetful, full)
}


def main(kind: str, address: str) -> None:
    """Start a run and do what this kind of job does."""
    rf.connect(address, actor="job", timeout=20.0)
    run = rf.start_run("jobs", name=kind)
    report(f"run {run.run_id}")
    KINDS[kind](run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
