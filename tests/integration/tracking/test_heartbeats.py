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
from tests.timeouts import scaled

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("liveness"), pytest.mark.busy]
PATIENCE = round(scaled(2))
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
        """A client of the process of now."""
        pid = self.services.program.pid
        if pid not in self._clients:
            self._clients[pid] = Client(self.services.address)
            self._stack.callback(self._clients[pid].channel.close)
        return self._clients[pid]

    def finish(self, run_id: str) -> None:
        """Ends a run."""
        request = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
        self.client().tracking.FinishRun(request, timeout=SECONDS)

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


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system, the same for all tests: whatever happens to it, it comes back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLFORWARD_ATTENDANCE_PATIENCE", str(PATIENCE))
        with System(tmp_path_factory.mktemp("liveness")) as running:
            yield running


@pytest.fixture(scope="module")
def blocked(system: System) -> tuple[str, Program]:
    """A run whose job holds the interpreter's lock for long, while other tests go on, and the job."""
    run_id = system.start()
    job = system.job("blocks", run_id)
    job.line("blocked")
    return run_id, job


@pytest.fixture(scope="module")
def switched_off(system: System) -> tuple[str, Program]:
    """A run whose job's host was switched off, and the job: it stands still, and answers no ping."""
    run_id, job = system.attended()
    os.kill(job.pid, signal.SIGSTOP)
    return run_id, job


@pytest.fixture(scope="module")
def living(system: System) -> tuple[str, str]:
    """Runs whose jobs live through all outages: one is attended, one logs."""
    attends, _ = system.attended()
    logs = system.start()
    system.job("logs", logs).line("logged")
    return attends, logs


def stopped(pid: int) -> None:
    """Stop a process for longer than the heartbeat timeout."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * PATIENCE)  # there is nothing to wait for but time
    os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("blocked", "switched_off")
def test_killed_job_is_lost_and_living_job_is_not(system: System, living: tuple[str, str]) -> None:
    dead, job = system.attended()
    before = time.time_ns()
    job.kill()
    after = time.time_ns()
    began = time.monotonic()
    until(lambda: system.status(dead) == LOST, "the run is lost", SECONDS)
    assert time.monotonic() - began > PATIENCE - 0.5
    run = system.run(dead)
    assert before <= run.last_heard.ToNanoseconds() <= after + 10**9
    assert system.losses(dead, *living) == [1, 0, 0]
    system.job("attends", dead).line("attended")
    assert system.status(dead) == RUNNING


def test_end_of_a_run_ends_its_call(system: System) -> None:
    run_id, job = system.attended()
    system.finish(run_id)
    job.line("run ended")
    assert job.wait() == 0


def test_job_on_a_vanished_host_is_lost(system: System, switched_off: tuple[str, Program]) -> None:
    run_id, job = switched_off
    until(lambda: system.status(run_id) == LOST, "the run is lost", SECONDS)
    os.kill(job.pid, signal.SIGCONT)
    until(lambda: system.status(run_id) == RUNNING, "the run is back", SECONDS)


def test_job_that_holds_the_interpreter_lock_is_not_lost(system: System, blocked: tuple[str, Program]) -> None:
    run_id, job = blocked
    job.line("awake")
    assert system.losses(run_id) == [0]
    system.finish(run_id)
    job.line("run ended")
    assert not any("call ended" in line for _, line in job.lines())


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
    """NATS does not answer."""
    stopped(system.services.nats())


def service_stopped(system: System) -> None:
    """The services stand still."""
    stopped(system.services.program.pid)


@pytest.mark.parametrize("outage", [killed, restarted, nats_killed, nats_stopped, service_stopped])
def test_outages_of_the_service_lose_no_living_run(
    system: System, living: tuple[str, str], outage: Callable[[System], None]
) -> None:
    before = system.losses(*living)
    outage(system)
    system.outlive()
    assert system.losses(*living) == before
    assert [system.status(run_id) for run_id in living] == [RUNNING, RUNNING]
