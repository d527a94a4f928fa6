"""The journal of a training job is delivered to its run exactly once, whatever is killed meanwhile.

ROLLFORWARD_CRASH_ROUNDS and ROLLFORWARD_CRASH_SEED make other and longer schedules of kills.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import rollforward as rf
from rollforward import Client, v1
from rollforward._journal.directory import Journal, journals
from rollforward._journal.reader import Reader
from rollforward._journal.records import Count
from tests.e2e.processes import ROLLFORWARD, Services
from tests.e2e.program import Program, until
from tests.timeouts import scaled

ROUNDS = int(os.environ.get("ROLLFORWARD_CRASH_ROUNDS", "2"))
SEED = int(os.environ.get("ROLLFORWARD_CRASH_SEED", "20"))

pytestmark = [pytest.mark.timeout(100 + 40 * ROUNDS), pytest.mark.xdist_group("writer")]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Yield a running system."""
    with Services(tmp_path_factory.mktemp("services") / "data") as running:
        yield running


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with services.connect("job") as connection:
        yield connection


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of the jobs' journals."""
    return tmp_path / "journal"


@pytest.fixture
def jobs(services: Services, tmp_path: Path, directory: Path) -> Iterator[Jobs]:
    started = Jobs(services.address, tmp_path, directory)
    yield started
    started.kill()


class Jobs:
    """Training jobs as separate processes."""

    def __init__(self, address: str, folder: Path, directory: Path) -> None:
        self._address = address
        self._folder = folder
        self._place = directory
        self._programs: list[Program] = []

    def start(self, kind: str, **environment: str) -> tuple[Program, str]:
        """Start a job of a kind; return it with its run's id."""
        command = [sys.executable, "-m", "tests.e2e.job", kind, self._address]
        log = self._folder / f"{kind}-{len(self._programs)}.log"
        program = Program(command, log, {"ROLLFORWARD_JOURNAL": str(self._place), **environment})
        self._programs.append(program)
        return program, program.line("^run ")[1].split()[1]

    def kill(self) -> None:
        for program in self._programs:
            kill_family(program)


def kill_family(program: Program) -> None:
    """Kill a job and the processes that it forked, whose group it leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)
    program.kill()


def catch_up(client: Client) -> None:
    """Write, so that reads show what is in the log now: they follow what their own connection wrote."""
    client.experiments.create(uuid.uuid4().hex)


def values(client: Client, run_id: str, key: str) -> list[float]:
    """Return the points of a metric in the log."""
    catch_up(client)
    return list(client.metrics.history(run_id, key).values)


def reported_count(program: Program, key: str) -> int:
    """Return the number of points of a metric that the job reported as logged."""
    lines = [line.split() for _, line in program.lines()]
    return max((int(line[1]) for line in lines if line[0] == key), default=0)


def expect_exactly(client: Client, run_id: str, key: str, min_count: int) -> None:
    """Fail unless the points are 0, 1, 2..., each once, with all reported ones and no more than were logged."""
    found = values(client, run_id, key)
    assert found == [float(step) for step in range(len(found))]
    assert min_count <= len(found) <= min_count + 50


def sync(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `rollforward sync` on the journals."""
    command = [ROLLFORWARD, "sync", str(directory), "-o", "json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def remaining_journals(directory: Path) -> list[Path]:
    """Return what is left of the journals."""
    return [path for path in directory.rglob("*") if path.is_file()]


def kill_and_wait(program: Program, directory: Path) -> None:
    """Kill a job, and wait until the system has released its locks."""
    program.kill()

    def is_free(folder: Path) -> bool:
        journal = Journal.open(folder)
        free = journal.lock()
        journal.unlock()
        return free

    until(lambda: all(map(is_free, journals(directory))), "the journals are free")


def test_each_journaled_point_is_delivered_once_despite_kills(
    services: Services, jobs: Jobs, client: Client, directory: Path
) -> None:
    dice = random.Random(SEED)
    runs: dict[str, int] = {}
    for number in range(2 * ROUNDS):
        program, run_id = jobs.start("killed")
        goal = dice.randrange(50, 4_000)
        program.line(f"^loss {goal // 50 * 50}$")
        if number % 2:
            services.kill()
            goal = reported_count(program, "loss") + dice.randrange(100, 2_000)
            program.line(f"^loss {goal // 50 * 50}$")
        kill_and_wait(program, directory)
        runs[run_id] = reported_count(program, "loss")
        if number % 2:
            assert sync(directory, "--timeout", "1").returncode == 1
            services.start()
        kill_some_syncs(dice, directory)
    done = sync(directory)
    assert done.returncode == 0, done.stderr
    assert remaining_journals(directory) == []
    for run_id, count in runs.items():
        expect_exactly(client, run_id, "loss", count)
        assert dict(client.runs.get(run_id).params) == {"kind": "killed"}


def kill_some_syncs(dice: random.Random, directory: Path) -> None:
    """Start `sync` and kill it at random moments."""
    for _ in range(3):
        command = [sys.executable, "-c", "import sys, rollforward as rf; rf.sync(sys.argv[1])", str(directory)]
        process = subprocess.Popen(command)
        try:
            process.wait(dice.uniform(0.2, 0.8))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()


def test_job_survives_service_outage(
    services: Services, jobs: Jobs, client: Client, directory: Path, tmp_path: Path
) -> None:
    services.kill()
    program, run_id = jobs.start("ending", JOB_MAY_END=str(tmp_path / "end"))
    program.line("^logged")
    services.start()
    (tmp_path / "end").touch()
    program.line("^finished")
    assert values(client, run_id, "loss") == [float(step) for step in range(500)]
    assert client.runs.get(run_id).status == v1.RUN_STATUS_FINISHED
    assert program.wait() == 0
    assert remaining_journals(directory) == []


def test_parent_delivers_points_of_forked_process(jobs: Jobs, client: Client, directory: Path) -> None:
    program, run_id = jobs.start("flushing")
    program.line("^child delivered")
    program.line("^finished")
    assert (values(client, run_id, "loss"), values(client, run_id, "child")) == ([0.0, 1.0], [1.0])
    assert client.runs.get(run_id).status == v1.RUN_STATUS_FINISHED
    assert program.wait() == 0
    assert remaining_journals(directory) == []


def test_killed_job_loses_no_points_of_threads_and_forks(jobs: Jobs, client: Client, directory: Path) -> None:
    program, run_id = jobs.start("forking")
    for key in ("thread-0", "thread-3", "child-0", "child-1"):
        program.line(f"^{key} 200$")
    os.kill(program.pid, signal.SIGKILL)
    before = reported_count(program, "child-0")
    program.line(f"^child-0 {before + 200}$")
    assert sync(directory).returncode == 0
    assert len(values(client, run_id, "child-0")) >= before
    assert remaining_journals(directory)
    kill_family(program)
    until(lambda: sync(directory).returncode == 0 and not remaining_journals(directory), "everything is delivered")
    for key in ("thread-0", "thread-1", "thread-2", "thread-3", "child-0", "child-1"):
        expect_exactly(client, run_id, key, reported_count(program, key))


def test_job_survives_full_disk(jobs: Jobs, client: Client, directory: Path) -> None:
    program, run_id = jobs.start("full")
    program.line("^finished")
    assert values(client, run_id, "loss") == [float(step) for step in range(21_000)]
    assert program.wait() == 0
    assert remaining_journals(directory) == []


def test_spawned_workers_log_to_passed_run(jobs: Jobs, client: Client, directory: Path) -> None:
    program, run_id = jobs.start("spawning")
    program.line("^finished")
    for number in range(2):
        assert values(client, run_id, f"worker-{number}") == [float(step) for step in range(100)]
    assert program.wait() == 0
    assert remaining_journals(directory) == []


def test_unclosed_run_ends_with_its_program(jobs: Jobs, client: Client, directory: Path) -> None:
    program, run_id = jobs.start("forgetful")
    assert program.wait() == 0
    assert values(client, run_id, "loss") == [1.0]
    assert client.runs.get(run_id).status == v1.RUN_STATUS_FINISHED
    assert remaining_journals(directory) == []


def test_offline_run_is_synced_with_artifacts(
    services: Services, client: Client, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(directory))
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    (model / "deep/weights.bin").write_bytes(os.urandom(100_000))
    with client.runs.start("offline", offline=True) as run:
        run.log_params({"depth": 3})
        run.log_metric("loss", 0.5)
        digest = run.log_artifacts(model, "model")
        run.log_artifact(model / "deep/weights.bin", "raw")
    (model / "deep/weights.bin").write_bytes(b"changed since")
    with pytest.raises(rf.NotFound):
        client.runs.get(run)
    reported_count: list[tuple[int, int]] = []
    (synced,) = rf.sync(directory, progress=lambda *both: reported_count.append(both))
    assert (synced.run_id, synced.state, synced.refused.total) == (run.run_id, "delivered", 0)
    assert reported_count[-1][0] == reported_count[-1][1] > 200_000
    assert any(100_000 <= done < 200_000 for done, _ in reported_count)
    catch_up(client)
    found = client.runs.get(run)
    assert {one.path: one.digest for one in found.artifacts}["model"] == digest
    assert {one.path for one in found.artifacts} == {"model", "raw/weights.bin"}
    assert (dict(found.params), found.status) == ({"depth": "3"}, v1.RUN_STATUS_FINISHED)
    assert remaining_journals(directory) == []


def test_batch_truncated_by_machine_crash_is_not_logged_again(
    client: Client, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(directory))
    with client.runs.start("offline", offline=True) as run:
        for step in range(100):
            run.log_metric("loss", step, step)
    shutil.copytree(directory, tmp_path / "copy")
    (synced,) = rf.sync(directory)
    assert (synced.state, synced.delivered.points) == ("delivered", 100)
    # As it stood when the batch was sent, without what had not come to the disk.
    (folder,) = journals(tmp_path / "copy")
    reader = Reader(Journal.open(folder), "0")
    start = reader.next()
    assert start is not None
    reader.note(start.steps[0], Count(0, 0))
    reader.settle()
    assert reader.next() is not None
    os.truncate(folder / "0.1", reader.cursor.pending - 1)
    done = sync(tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(done.stdout)
    assert (again["run_id"], again["state"], again["refused"]["points"]) == (run.run_id, "delivered", 0)
    assert values(client, run.run_id, "loss") == [float(step) for step in range(100)]


def test_artifact_logged_during_outage_is_uploaded_later(
    services: Services, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(directory))
    (tmp_path / "notes.txt").write_text("all is well")
    with services.connect("job", timeout=scaled(2.0)) as client:
        run = client.runs.start("outage")
        services.kill()
        digest = run.log_artifact(tmp_path / "notes.txt")
        services.start()
        run.flush(timeout=scaled(20.0))
        (artifact,) = client.runs.get(run).artifacts
        assert (artifact.path, artifact.digest) == ("notes.txt", digest)
        run.finish()
    assert remaining_journals(directory) == []
