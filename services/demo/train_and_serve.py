"""Steps 1 to 4: start the system, train, pass the gate, serve."""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import rollforward as rf
from rollforward import v1
from services.demo.console import check, code, command, payloads, say, shown, step, working
from services.demo.processes import Child, Children

if TYPE_CHECKING:
    from services.demo.data import Split

MODEL = "breast-cancer"
CHAMPION = f"{MODEL}@champion"
GATE = "run.metrics.accuracy > 0.95"
# A job's name and what it is, without the libraries that the job itself needs.
JOBS = ("forest", "linear", "unscaled", "stumps")

_READY = re.compile(r"listens on (\S+:\d+)")


@dataclass(slots=True)
class Stage:
    """What the steps share."""

    scratch: Path
    children: Children
    address: str
    client: rf.Client = field(init=False)
    data: Split = field(init=False)
    runs: dict[str, v1.Run] = field(default_factory=dict)
    versions: list[v1.Version] = field(default_factory=list)
    endpoint: str = ""


def start(scratch: Path, data: Path, children: Children) -> Stage:
    """Step 1: the system, as `rollforward up` starts it."""
    step(1, "Start the system")
    began = time.monotonic()
    arguments = ("up", "--data", str(data), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with working("starting NATS, which keeps the event log, and all services ..."):
        system = children.start("system", "rollforward.cli", *arguments)
        address = children.wait_for("the system", lambda: _address(system))
    # From here on the commands that are shown find it, as they would in a shell.
    os.environ["ROLLFORWARD_URI"] = address
    shown("up", "--data", str(data))
    say(f"ready in {time.monotonic() - began:.1f} s: gRPC on {address}, two processes, no database to set up.")
    return Stage(scratch, children, address)


def _address(system: Child) -> str | None:
    match = next(filter(None, map(_READY.search, system.lines())), None)
    return match[1] if match else None


def train(stage: Stage) -> None:
    """Step 2: each configuration in a process of its own, which logs over gRPC."""
    step(2, "Train four configurations, each in a process of its own")
    say(
        "569 tumours, 30 measurements each: is it benign? Every job logs its parameters, its metrics "
        "after each epoch or batch of trees, and its model files, over gRPC."
    )
    began = time.monotonic()
    ids = {name: uuid.uuid4().hex for name in JOBS}
    jobs = {name: _start_job(stage, name, ids[name]) for name in JOBS}
    with working("training ..."):
        # Meanwhile, this process loads what it needs of the same libraries.
        from services.demo.data import split  # noqa: PLC0415 - takes seconds

        stage.data = split()
        for name in JOBS:
            stage.children.wait_for(f"training job {name}", lambda job=jobs[name]: _ended(job))  # type: ignore[misc]
    stage.runs = {name: stage.client.runs.get(ids[name]) for name in JOBS}
    done = [name for name, run in stage.runs.items() if run.status == v1.RUN_STATUS_FINISHED]
    check(done == list(JOBS), f"only {done} finished")
    points = sum(metric.count for run in stage.runs.values() for metric in run.metrics.values())
    say(f"{len(done)} runs and {points} metric points in {time.monotonic() - began:.1f} s.")


def _start_job(stage: Stage, name: str, run_id: str) -> Child:
    arguments = (name, "--experiment", MODEL, "--run-id", run_id, "--server", stage.address)
    return stage.children.start(f"train-{name}", "services.demo.train", *arguments)


def _ended(job: Child) -> bool | None:
    job.check()
    return True if job.process.poll() == 0 else None


def register(stage: Stage) -> None:
    """Step 3: the runs side by side; the gate decides which of them become versions."""
    step(3, "Compare the runs, and let the gate decide")
    command("runs", "compare", *(run.run_id for run in stage.runs.values()))
    _set_gate(stage)
    say(f"\nThe model has a gate, an expression that a run must meet: {GATE}")
    rows = []
    for run in sorted(stage.runs.values(), key=_accuracy):
        try:
            version = stage.client.versions.register(MODEL, run, artifact="model")
        except rf.PreconditionFailed as refusal:
            check(refusal.reason == "GATE_FAILED", f"{run.name} was refused for {refusal.reason}")
            rows.append((run.name, f"{_accuracy(run):.3f}", "refused", f"{refusal.reason}: {refusal.message}"))
        else:
            stage.versions.append(version)
            rows.append((run.name, f"{_accuracy(run):.3f}", f"v{version.version}", version.digest[:19]))
    payloads(("RUN", "ACCURACY>", "BECAME", ""), rows)
    passed = sum(_accuracy(run) > 0.95 for run in stage.runs.values())
    check(len(stage.versions) == passed, "the gate let the wrong runs through")
    check(2 <= passed < len(stage.runs), f"{passed} runs passed the gate, which makes no story")


def _accuracy(run: v1.Run) -> float:
    return run.metrics["accuracy"].last


def _set_gate(stage: Stage) -> None:
    try:
        stage.client.models.create(MODEL, description="Is a tumour benign?", gate=GATE)
    except rf.AlreadyExists:
        # The directory is one that the demo used before.
        stage.client.models.set_registration_gate(MODEL, GATE)


def serve(stage: Stage) -> None:
    """Step 4: the aliases, and a pod that follows one of them."""
    step(4, "Name a champion and a candidate, and serve the champion")
    first, best = stage.versions[0], stage.versions[-1]
    for alias, version in (("champion", first), ("candidate", best)):
        stage.client.aliases.move(f"{MODEL}@{alias}", version, reason="passed the gate")
        code(f'rf.move_alias("{MODEL}@{alias}", {version.version}, reason="passed the gate")')
    began = time.monotonic()
    arguments = ("serve", CHAMPION, "--server", stage.address, "--grpc", "127.0.0.1:0")
    shown("serve", CHAMPION)
    with working("a pod starts, as its own process; it follows the alias from now on ..."):
        stage.children.start("pod", "rollforward.cli", *arguments, "--cache", str(stage.scratch / "pod"))
        stage.endpoint = stage.children.wait_for("the pod", lambda: _serving(stage, first))
    say(f"ready after {time.monotonic() - began:.1f} s, for the first import of scikit-learn is slow.")
    command("deployments", "list", MODEL)


def _serving(stage: Stage, version: v1.Version) -> str | None:
    pods = [pod for deployment in stage.client.deployments.list(MODEL) for pod in deployment.pods]
    ready = (pod for pod in pods if pod.state == v1.POD_STATE_CURRENT and pod.version == version.version)
    return next((pod.endpoint for pod in ready), None)
