"""Training jobs under SIGKILL of jobs, services, NATS and database, and a full disk: points are exactly once.

ROLLFORWARD_TRAINING_CRASHES and ROLLFORWARD_TRAINING_SEED make longer and other schedules.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import rollforward as rf
from rollforward import v1
from rollforward._series import unpack
from tests.e2e.history import Logs, read_logs
from tests.e2e.processes import Services
from tests.e2e.program import ROOT, Program, until
from tests.servers.postgres import PostgresServer, running_postgres
from tests.timeouts import scaled

JOBS = 8
CRASHES = int(os.environ.get("ROLLFORWARD_TRAINING_CRASHES", "6"))
SEED = int(os.environ.get("ROLLFORWARD_TRAINING_SEED", "7"))
DISK = "48m"

pytestmark = [pytest.mark.timeout(240 + 40 * CRASHES), pytest.mark.xdist_group("training")]

Points = Mapping[str, Mapping[str, list[tuple[int, float]]]]
"""Steps and values by run and metric."""


@dataclass
class Job:
    """A job with several lives, one after the other, all in one run."""

    run_id: str
    home: Path
    address: str
    life: int = 0
    program: Program | None = None
    lives: list[Path] = field(default_factory=list)

    def begin(self) -> None:
        """Start the job's next life."""
        self.life += 1
        ledger = self.home / f"{self.run_id}-{self.life}"
        self.lives.append(ledger)
        command = [
            sys.executable,
            "-m",
            "tests.e2e.crashes.training_job",
            self.address,
            self.run_id,
            str(self.life),
            str(ledger),
        ]
        environment = {"ROLLFORWARD_JOURNAL": str(self.home / "journal"), "PYTHONPATH": str(ROOT)}
        self.program = Program(command, self.home / f"{self.run_id}.log", environment)

    def trains(self) -> None:
        """Wait until the job logs."""
        until(lambda: self.logged() > 0, "the job logs", 60.0)

    def logged(self) -> int:
        """Return how many calls have returned in this life."""
        return _noted(self.lives[-1])

    def kill(self) -> None:
        """Kill the job with SIGKILL."""
        assert self.program
        self.program.kill()

    def end(self) -> None:
        """Let the job end its run."""
        assert self.program
        assert self.program.terminate() == 0, self.program.errors[-3000:]


def _noted(ledger: Path) -> int:
    try:
        return int(ledger.read_text() or "0")
    except FileNotFoundError:
        return 0


@dataclass
class Scene:
    """A running system and its jobs."""

    services: Services
    jobs: list[Job]
    dice: random.Random
    postgres: PostgresServer | None

    def progress(self) -> None:
        """Wait until every job has logged some more."""
        goals = {job.run_id: job.logged() + self.dice.randrange(20, 200) for job in self.jobs}
        until(lambda: all(job.logged() >= goals[job.run_id] for job in self.jobs), "all jobs log", 60.0)

    def crash_a_job(self) -> None:
        """Kill a job, and start its next life."""
        job = self.dice.choice(self.jobs)
        job.kill()
        job.begin()
        job.trains()

    def crash_services(self) -> None:
        """Kill the services, and start them some time later."""
        self.services.kill()
        self.progress()
        self.services.start()

    def crash_nats(self) -> None:
        """Kill nats-server, which the services restart."""
        self.services.kill_nats()

    def crash_database(self) -> None:
        """Crash the database, and start it some time later."""
        assert self.postgres
        self.postgres.end(signal.SIGQUIT)
        self.progress()
        self.postgres.start()

    def crash_all(self) -> None:
        """Kill everything, and start the jobs first."""
        self.services.kill()
        for job in self.jobs[:3]:
            job.kill()
            job.begin()
        self.progress()
        self.services.start()

    @property
    def crashes(self) -> list[Callable[[], None]]:
        """Return all ways to crash."""
        ways = [self.crash_a_job, self.crash_services, self.crash_nats, self.crash_all]
        return [*ways, self.crash_database] if self.postgres else ways


@contextmanager
def training(home: Path, data: Path, postgres: PostgresServer | None, database: str = "") -> Iterator[Scene]:
    """Yield jobs that train."""
    with Services(data, database) as services:
        jobs = [Job(uuid.uuid4().hex, home, services.address) for _ in range(JOBS)]
        try:
            for job in jobs:
                job.begin()
            for job in jobs:
                job.trains()
            yield Scene(services, jobs, random.Random(SEED), postgres)
        finally:
            for job in jobs:
                if job.program:
                    job.program.kill()


def _finish(scene: Scene) -> None:
    """End half of the jobs, kill the others for good, and deliver their journals with `sync`."""
    for job in scene.jobs[::2]:
        job.end()
    for job in scene.jobs[1::2]:
        job.kill()
    left = rf.sync(scene.jobs[0].home / "journal", timeout=scaled(60.0))
    assert {one.state for one in left} <= {"delivered"}, left
    assert not any(one.refused.total for one in left), left


def _check(scene: Scene) -> None:
    """Check that the log and the rows have what was journaled, once, and that the rows equal a rebuild."""
    with scene.services.connect("auditor") as client:
        for log in client.system.status().logs:
            client.connection.note_position(log.name, log.head)
        rows = {job.run_id: _points_in_rows(job, client) for job in scene.jobs}
        statuses = {job.run_id: client.runs.get(job.run_id).status for job in scene.jobs}
        for name in ("tracking", "registry-runs", "audit-tracking"):
            *_, last = client.system.rebuild(name)
            assert last.live_digest == last.rebuilt_digest
    assert scene.services.stop() == 0
    logged = _points_in_log(read_logs(scene.services.data))
    for number, job in enumerate(scene.jobs):
        _check_job(job, logged[job.run_id])
        assert rows[job.run_id] == logged[job.run_id]
        assert number % 2 or statuses[job.run_id] == v1.RUN_STATUS_FINISHED
    requests = Counter(_requests(read_logs(scene.services.data)))
    assert max(requests.values()) == 1


def _check_job(job: Job, found: Mapping[str, list[tuple[int, float]]]) -> None:
    for life, ledger in enumerate(job.lives, 1):
        noted = _noted(ledger)
        points = sorted(found.get(f"life-{life}", []))
        # A job that was killed may have journaled a point that it had not noted yet.
        assert noted <= len(points) <= noted + 1, (job.run_id, life, noted, len(points))
        assert points == [(step, float(step)) for step in range(len(points))]


def _points_in_rows(job: Job, client: rf.Client) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for key in client.runs.get(job.run_id).metrics:
        history = client.metrics.history(job.run_id, key)
        found[key] = list(zip(history.steps, history.values, strict=True))
    return found


def _points_in_log(logs: Logs) -> Points:
    found: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for event in logs["tracking"]:
        if isinstance(event.data, v1.MetricsLogged):
            for series in event.data.series:
                points = unpack([series])
                found[event.data.run_id][series.key] += zip(points.steps, points.values, strict=True)
    return {run: {key: sorted(points) for key, points in metrics.items()} for run, metrics in found.items()}


def _requests(logs: Logs) -> Iterator[tuple[str, str, str]]:
    for event in logs["tracking"]:
        yield event.metadata.actor, event.metadata.request_id, event.stream


def test_crashes_lose_or_repeat_no_points_on_sqlite(tmp_path: Path) -> None:
    with training(tmp_path, tmp_path / "data", None) as scene:
        for _ in range(CRASHES):
            scene.progress()
            scene.dice.choice(scene.crashes)()
        scene.progress()
        _finish(scene)
        _check(scene)


def test_crashes_lose_or_repeat_no_points_on_postgresql(tmp_path: Path) -> None:
    with (
        running_postgres() as postgres,
        postgres.database() as url,
        training(tmp_path, tmp_path / "data", postgres, url) as scene,
    ):
        scene.crash_database()
        for _ in range(CRASHES):
            scene.progress()
            scene.dice.choice(scene.crashes)()
        scene.progress()
        _finish(scene)
        _check(scene)


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    """Yield a small disk; skip the test where none can be mounted."""
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        pytest.skip("a small disk takes mount")
    command = [mount, "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk takes the right to mount one: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([umount, str(place)], check=True)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))


def test_full_service_disk_loses_or_repeats_no_points(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk, training(tmp_path, disk / "data", None) as scene:
        scene.progress()
        filler = disk / "filler"
        with pytest.raises(OSError, match="space"):
            _fill(filler)
        for _ in range(3):
            scene.progress()
        scene.crash_a_job()
        filler.unlink()
        scene.progress()
        _finish(scene)
        _check(scene)
