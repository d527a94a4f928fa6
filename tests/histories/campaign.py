"""Campaigns: many histories in parts, whose verdicts are saved so that an interrupted campaign resumes."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Violation
from tests.histories.recorded.recording import History
from tests.histories.recorded.storage import write
from tests.histories.recorded.subjects import Failure
from tests.histories.run import Recorder
from tests.histories.systems.disks import unmount_abandoned
from tests.histories.systems.faults import draw
from tests.histories.systems.shapes import SHAPES
from tests.histories.systems.system import System

LIFE = 10
"""The number of histories that share a system, which is then started again, empty."""
MAX_SEED = 10**9

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a campaign: seeds from `first` on, each on the shape whose turn it is."""

    first: int
    seeds: int
    shapes: tuple[str, ...]
    faults: tuple[str, ...]

    def shape(self, seed: int) -> str:
        """Return the shape of a seed."""
        return self.shapes[seed % len(self.shapes)]

    def groups(self, done: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
        """Yield the seeds that are left, those of one system together; the shapes take turns."""
        size = LIFE * len(self.shapes)
        for start in range(self.first, self.first + self.seeds, size):
            block = range(start, min(start + size, self.first + self.seeds))
            for shape in self.shapes:
                seeds = [seed for seed in block if self.shape(seed) == shape and seed not in done]
                if seeds:
                    yield shape, seeds


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one seed: `rules` are those that it broke, `file` is where a broken history is kept."""

    seed: int
    shape: str
    faults: tuple[str, ...]
    rules: tuple[str, ...]
    seconds: float
    operations: int = 0
    events: int = 0
    file: str = ""
    skipped: str = ""


class Campaign:
    """A plan and the verdicts so far, in a directory.

    Args:
        home: The directory; it is created.
        wanted: The plan; `first` below 0 for a random one.
        fresh: Whether to start over even if the same plan was interrupted.
    """

    def __init__(self, home: Path, wanted: Plan, *, fresh: bool = False) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._verdicts = home / "verdicts.jsonl"
        known = None if fresh else self._known(wanted)
        if known is None:
            self._verdicts.unlink(missing_ok=True)
            shutil.rmtree(home / "broken", ignore_errors=True)
            first = wanted.first if wanted.first >= 0 else random.SystemRandom().randrange(MAX_SEED)
            known = Plan(first, wanted.seeds, wanted.shapes, wanted.faults)
            asked = {"asked_first": wanted.first}
            (home / "plan.json").write_text(json.dumps(asdict(known) | asked))
        self.plan = known
        self.verdicts = self._read()
        self.lacks: list[str] = []

    @property
    def broken(self) -> list[Verdict]:
        """Return the verdicts of histories that broke a rule."""
        return [verdict for verdict in self.verdicts if verdict.rules]

    def run(self, report: Report) -> None:
        """Record and check what is left; `report` is given a line about each history that is broken or skipped."""
        unmount_abandoned()
        done = {verdict.seed for verdict in self.verdicts}
        for shape, seeds in self.plan.groups(sorted(done)):
            left = list(seeds)
            while left:
                try:
                    left = self._run_group(shape, left, report)
                except (Exception, pytest.fail.Exception):  # noqa: BLE001 - it is the seed's that comes next
                    left = self._fail(shape, left, report)

    def _run_group(self, shape: str, seeds: Sequence[int], report: Report) -> list[int]:
        """Record seeds on one system until it is spent; return those that are left."""
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-")))
            try:
                system = stack.enter_context(SHAPES[shape](home))
            except pytest.skip.Exception as reason:
                for seed in seeds:
                    self._note(Verdict(seed, shape, (), (), 0.0, skipped=str(reason)), report)
                return []
            if system.lacks and system.lacks not in self.lacks:
                self.lacks.append(system.lacks)
            recorder = Recorder(system)
            for number, seed in enumerate(seeds):
                verdict = self._record(recorder, system, shape, seed)
                if verdict.rules:
                    self._keep_logs(home, verdict)
                self._note(verdict, report)
                if recorder.is_spent:
                    return list(seeds[number + 1 :])
        return []

    def _fail(self, shape: str, seeds: Sequence[int], report: Report) -> list[int]:
        """Mark the first seed without a verdict as broken: its system failed to start or to stop."""
        done = {verdict.seed for verdict in self.verdicts}
        left = [seed for seed in seeds if seed not in done]
        if left:
            history = History(f"h{left[0]}", failures=[Failure("system", traceback.format_exc())], is_whole=False)
            file = self._keep(history, check(history))
            self._note(Verdict(left[0], shape, (), ("NO_FAILURE",), 0.0, file=file), report)
        return left[1:]

    def _record(self, recorder: Recorder, system: System, shape: str, seed: int) -> Verdict:
        started = time.monotonic()
        turn = seed // len(self.plan.shapes)
        history = recorder.record(seed, draw(seed, turn, self.plan.faults, system))
        history.shape = shape
        violations = check(history)
        file = self._keep(history, violations) if violations else ""
        rules = tuple(sorted({violation.rule.name for violation in violations}))
        seconds = round(time.monotonic() - started, 1)
        sizes = len(history.operations), len(history.events)
        return Verdict(seed, shape, tuple(history.faults), rules, seconds, *sizes, file)

    def _keep(self, history: History, violations: Sequence[Violation]) -> str:
        place = self._home / "broken"
        place.mkdir(exist_ok=True)
        file = place / f"{history.name}.jsonl"
        write(history, file)
        file.with_suffix(".txt").write_text("\n".join(map(str, violations)) + "\n")
        return str(file)

    def _keep_logs(self, home: Path, verdict: Verdict) -> None:
        for log in home.glob("*.log"):
            shutil.copy(log, self._home / "broken" / f"h{verdict.seed}-{log.name}")

    def _note(self, verdict: Verdict, report: Report) -> None:
        self.verdicts.append(verdict)
        with self._verdicts.open("a") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")
        report(describe(verdict))

    def _known(self, wanted: Plan) -> Plan | None:
        """Return the plan that was cut off, if it is the one that is wanted."""
        file = self._home / "plan.json"
        if not file.exists():
            return None
        known = json.loads(file.read_text())
        asked = known.pop("asked_first")
        plan = Plan(known["first"], known["seeds"], tuple(known["shapes"]), tuple(known["faults"]))
        same = (asked, *asdict(plan).values()) == (wanted.first, plan.first, *list(asdict(wanted).values())[1:])
        return plan if same and len(self._read()) < plan.seeds else None

    def _read(self) -> list[Verdict]:
        if not self._verdicts.exists():
            return []
        lines = [json.loads(line) for line in self._verdicts.read_text().splitlines()]
        return [Verdict(**line | {"faults": tuple(line["faults"]), "rules": tuple(line["rules"])}) for line in lines]


def describe(verdict: Verdict) -> str:
    """Return a line about a verdict."""
    about = f"seed {verdict.seed}, {verdict.shape}, {', '.join(verdict.faults)}, {verdict.seconds} s"
    if verdict.skipped:
        return f"skipped: seed {verdict.seed}, {verdict.shape}: {verdict.skipped}"
    return f"broken: {about}: {', '.join(verdict.rules)}; see {verdict.file}" if verdict.rules else f"good: {about}"


def summary(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield the figures of a campaign, one line each."""
    done = [verdict for verdict in verdicts if not verdict.skipped]
    broken = [verdict for verdict in done if verdict.rules]
    seconds = sum(verdict.seconds for verdict in done)
    yield f"{len(done)} histories, {len(broken)} broken, {len(verdicts) - len(done)} skipped"
    yield f"{sum(one.operations for one in done)} operations, {sum(one.events for one in done)} changes of aliases"
    if done:
        yield f"{seconds:.0f} s, {seconds / len(done):.1f} s a history"
    yield f"by shape: {_counts(Counter(verdict.shape for verdict in done))}"
    yield f"by fault: {_counts(Counter(fault for verdict in done for fault in verdict.faults))}"
    yield from (describe(verdict) for verdict in broken)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: -one[1]))
