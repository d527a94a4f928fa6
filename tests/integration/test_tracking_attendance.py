"""Jobs that die are shown as such, and jobs that live never are: with real processes, killed and stopped."""

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

PATIENCE = 3
LOST, RUNNING = v1.RUN_STATUS_LOST, v1.RUN_STATUS_RUNNING


class System:
    """All services, with little patience, and jobs."""

    def __init__(self, home: Path) -> None:
        self.services = Services(home / "data")
        self._home = home
        self._stack = ExitStack()

    def __enter__(self) -> System:
        self._stack.enter_context(self.services)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> Client:
        """A client of the process of now."""
        client = Client(self.services.address)
        self._stack.callback(client.channel.close)
        return client

    def start(self) -> str:
        """A run whose job promises to stay in touch; its id."""
        run_id, client = new_id(), self.client()
        request = v1.StartRunRequest(run_id=run_id, experiment_id=client.new_experiment(), heartbeat=True)
        client.tracking.StartRun(request, timeout=SECONDS)
        return run_id

    def job(self, how: str, run_id: str) -> Program:
        """The job of a run."""
        file = Path(__file__).with_name("job.py")
        command = [sys.executable, str(file), how, self.services.address, run_id]
        program = Program(command, self._home / f"{run_id}.log")
        self._stack.callback(program.kill)
        return program

    def attended(self) -> tuple[str, Program]:
        """A run and its job, which is in touch."""
        run_id = self.start()
        job = self.job("attends", run_id)
        job.line(f"attended with a patience of {PATIENCE} s")
        return run_id, job

    def status(self, run_id: str) -> v1.RunStatus.ValueType:
        """Where a run stands."""
        return self.run(run_id).status

    def run(self, run_id: str) -> v1.Run:
        """A run as it is now."""
        client = self.client()
        behind = (("rollforward-min-position", f"tracking={client.heads()['tracking']}"),)
        return client.tracking.GetRun(v1.GetRunRequest(run_id=run_id), metadata=behind, timeout=SECONDS).run

    def losses(self, *run_ids: str) -> list[int]:
        """How often each run was lost, ever."""
        client = self.client()
        behind = (("rollforward-min-position", f"tracking={client.heads()['tracking']}"),)
        asked = [v1.ListEventsRequest(stream=f"run/{run_id}", type=_name(v1.RunLost)) for run_id in run_ids]
        return [len(client.audit.ListEvents(ask, metadata=behind, timeout=SECONDS).events) for ask in asked]

    def outlive(self) -> None:
        """Waits until a run that nobody attends, and that begins now, was lost."""
        run_id = self.start()
        until(lambda: self.status(run_id) == LOST, "a run without a job is lost", SECONDS)


def _name(event: type[Message]) -> str:
    return event.DESCRIPTOR.full_name


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A running system."""
    monkeypatch.setenv("ROLLFORWARD_ATTENDANCE_PATIENCE", str(PATIENCE))
    with System(tmp_path) as running:
        yield running


def stopped(pid: int, seconds: float) -> None:
    """A process stands still for a while."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # there is nothing to wait for but time
    os.kill(pid, signal.SIGCONT)


def test_a_job_that_was_killed_is_lost_and_one_that_lives_is_not(system: System) -> None:
    (dead, job), (alive, _) = system.attended(), system.attended()
    before = time.time_ns()
    job.kill()
    after = time.time_ns()
    began = time.monotonic()
    until(lambda: system.status(dead) == LOST, "the run is lost", SECONDS)
    assert PATIENCE - 0.5 < time.monotonic() - began < 3 * PATIENCE
    run = system.run(dead)
    assert before <= run.last_heard.ToNanoseconds() <= after + 10**9
    assert system.losses(dead, alive) == [1, 0]
    system.job("attends", dead).line("attended")
    assert system.status(dead) == RUNNING


def test_the_end_of_a_run_ends_the_call(system: System) -> None:
    run_id, job = system.attended()
    request = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
    system.client().tracking.FinishRun(request, timeout=SECONDS)
    job.line("run ended")
    assert job.wait() == 0


def killed(system: System) -> None:
    """The services and NATS end as in a crash, and come back."""
    system.services.kill()
    system.services.start()


def restarted(system: System) -> None:
    """They are stopped in good order, and come back."""
    assert system.services.stop() == 0
    system.services.start()


def nats_killed(system: System) -> None:
    """NATS alone ends as in a crash; the services bring it back."""
    system.services.kill_nats()


def nats_stopped(system: System) -> None:
    """NATS does not answer for longer than the patience."""
    stopped(system.services.nats(), 2 * PATIENCE)


def service_stopped(system: System) -> None:
    """The services stand still for longer than the patience."""
    stopped(system.services.program.pid, 2 * PATIENCE)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("outage", [killed, restarted, nats_killed, nats_stopped, service_stopped])
def test_no_outage_of_ours_makes_a_living_run_lost(system: System, outage: Callable[[System], None]) -> None:
    attends, _ = system.attended()
    logs = system.start()
    system.job("logs", logs).line("logged")
    outage(system)
    system.outlive()
    assert system.losses(attends, logs) == [0, 0]
    assert system.status(attends) == system.status(logs) == RUNNING


@pytest.mark.timeout(180)
def test_a_job_that_holds_the_interpreters_lock_for_long_is_not_lost(system: System) -> None:
    run_id = system.start()
    job = system.job("blocks", run_id)
    job.line("blocked")
    job.line("awake")
    system.outlive()
    assert system.losses(run_id) == [0]
    assert not any("call ended" in line for _, line in job._lines)


@pytest.mark.timeout(180)
def test_a_job_whose_host_is_gone_is_lost(system: System) -> None:
    """A job that stands still answers no ping, as one whose host was switched off."""
    run_id, job = system.attended()
    os.kill(job.pid, signal.SIGSTOP)
    until(lambda: system.status(run_id) == LOST, "the run is lost", SECONDS)
    os.kill(job.pid, signal.SIGCONT)
    until(lambda: system.status(run_id) == RUNNING, "the run is back", SECONDS)
