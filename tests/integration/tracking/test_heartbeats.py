"""Heartbeats with real processes: killed and paused jobs are lost, running ones never are."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from google.protobuf.message import Message

from rollforward import v1
from tests.e2e.processes import Services
from tests.e2e.program import Program, until
from tests.integration.up import SECONDS, Client, new_id
from tests.timeouts import scaled

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("liveness"), pytest.mark.busy]
TIMEOUT = round(scaled(2))
LOST, RUNNING = v1.RUN_STATUS_LOST, v1.RUN_STATUS_RUNNING


class System:
    """All services, with a short heartbeat timeout, and jobs."""

    def __init__(self, home: Path) -> None:
        self.services = Services(home / "data")
        self._home = home
        self._stack = ExitStack()
        self._clients: dict[int, Client] = {}

    def __enter__(self) -> System:
        self._stack.enter_context(self.services)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Client:
        """Return a client of the current process."""
        pid = self.services.program.pid
        if pid not in self._clients:
            self._clients[pid] = Client(self.services.address)
            self._stack.callback(self._clients[pid].channel.close)
        return self._clients[pid]

    def finish(self, run_id: str) -> None:
        """Finish a run."""
        request = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
        self.client().tracking.FinishRun(request, timeout=SECONDS)

    def start(self) -> str:
        """Start a run with heartbeats; return its id."""
        run_id, client = new_id(), self.client()
        request = v1.StartRunRequest(run_id=run_id, experiment_id=client.new_experiment(), heartbeat=True)
        client.tracking.StartRun(request, timeout=SECONDS)
        return run_id

    def job(self, mode: str, run_id: str) -> Program:
        """Start the job of a run."""
        file = Path(__file__).with_name("heartbeat_job.py")
        command = [sys.executable, str(file), mode, self.services.address, run_id]
        program = Program(command, self._home / f"{run_id}.log")
        self._stack.callback(program.kill)
        return program

    def attended(self) -> tuple[str, Program]:
        """Start a run and its job, and wait for the first heartbeat."""
        run_id = self.start()
        job = self.job("attends", run_id)
        job.line(f"attended, timeout={TIMEOUT} s")
        return run_id, job

    def status(self, run_id: str) -> v1.RunStatus.ValueType:
        """Return the status of a run."""
        return self.run(run_id).status

    def run(self, run_id: str) -> v1.Run:
        """Return a run."""
        client = self.client()
        headers_at_head = (("rollforward-min-position", f"tracking={client.heads()['tracking']}"),)
        return client.tracking.GetRun(v1.GetRunRequest(run_id=run_id), metadata=headers_at_head, timeout=SECONDS).run

    def losses(self, *run_ids: str) -> list[int]:
        """Count how often each run was lost."""
        client = self.client()
        headers_at_head = (("rollforward-min-position", f"tracking={client.heads()['tracking']}"),)
        requests = [v1.ListEventsRequest(stream=f"run/{run_id}", type=_name(v1.RunLost)) for run_id in run_ids]
        return [
            len(client.audit.ListEvents(request, metadata=headers_at_head, timeout=SECONDS).events)
            for request in requests
        ]

    def outlast_timeout(self) -> None:
        """Wait until a new run without a job is lost."""
        run_id = self.start()
        until(lambda: self.status(run_id) == LOST, "a run without a job is lost", SECONDS)


def _name(event: type[Message]) -> str:
    return event.DESCRIPTOR.full_name


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Run one system for all tests: it survives every outage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLFORWARD_ATTENDANCE_PATIENCE", str(TIMEOUT))
        with System(tmp_path_factory.mktemp("liveness")) as running:
            yield running


@pytest.fixture(scope="module")
def blocked(system: System) -> tuple[str, Program]:
    """Start a run whose job holds the interpreter's lock for long, while other tests continue."""
    run_id = system.start()
    job = system.job("blocks", run_id)
    job.line("blocked")
    return run_id, job


@pytest.fixture(scope="module")
def switched_off(system: System) -> tuple[str, Program]:
    """Start a run and pause its job, as if its host were switched off: it answers no ping."""
    run_id, job = system.attended()
    os.kill(job.pid, signal.SIGSTOP)
    return run_id, job


@pytest.fixture(scope="module")
def living(system: System) -> tuple[str, str]:
    """Start runs whose jobs survive all outages: one sends heartbeats, one logs."""
    attends, _ = system.attended()
    logs = system.start()
    system.job("logs", logs).line("logged")
    return attends, logs


def pause(pid: int) -> None:
    """Stop a process for longer than the heartbeat timeout."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * TIMEOUT)  # only time can be waited for
    os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("blocked", "switched_off")
def test_killed_job_is_lost_and_living_job_is_not(system: System, living: tuple[str, str]) -> None:
    dead, job = system.attended()
    before = time.time_ns()
    job.kill()
    after = time.time_ns()
    began = time.monotonic()
    until(lambda: system.status(dead) == LOST, "the run is lost", SECONDS)
    assert time.monotonic() - began > TIMEOUT - 0.5
    run = system.run(dead)
    assert before <= run.last_heard.ToNanoseconds() <= after + 10**9
    assert system.losses(dead, *living) == [1, 0, 0]
    system.job("attends", dead).line("attended")
    assert system.status(dead) == RUNNING


def test_end_of_run_ends_heartbeat_call(system: System) -> None:
    run_id, job = system.attended()
    system.finish(run_id)
    job.line("run ended")
    assert job.wait() == 0


def test_job_on_unreachable_host_is_lost(system: System, switched_off: tuple[str, Program]) -> None:
    run_id, job = switched_off
    until(lambda: system.status(run_id) == LOST, "the run is lost", SECONDS)
    os.kill(job.pid, signal.SIGCONT)
    until(lambda: system.status(run_id) == RUNNING, "the run is back", SECONDS)


def test_job_that_holds_interpreter_lock_is_not_lost(system: System, blocked: tuple[str, Program]) -> None:
    run_id, job = blocked
    job.line("awake")
    assert system.losses(run_id) == [0]
    system.finish(run_id)
    job.line("run ended")
    assert not any("call ended" in line for _, line in job.lines())


def killed(system: System) -> None:
    """Kill the services and NATS, then restart them."""
    system.services.kill()
    system.services.start()


def restarted(system: System) -> None:
    """Stop the services gracefully, then restart them."""
    assert system.services.stop() == 0
    system.services.start()


def nats_killed(system: System) -> None:
    """Kill NATS alone, which the services restart."""
    system.services.kill_nats()


def nats_stopped(system: System) -> None:
    """Pause NATS."""
    pause(system.services.nats())


def service_stopped(system: System) -> None:
    """Pause the services."""
    pause(system.services.program.pid)


@pytest.mark.parametrize("outage", [killed, restarted, nats_killed, nats_stopped, service_stopped])
def test_outage_of_service_loses_no_running_job(
    system: System, living: tuple[str, str], outage: Callable[[System], None]
) -> None:
    before = system.losses(*living)
    outage(system)
    system.outlast_timeout()
    assert system.losses(*living) == before
    assert [system.status(run_id) for run_id in living] == [RUNNING, RUNNING]
