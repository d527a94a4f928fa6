"""Tests of campaigns: every shape is covered, broken histories are kept, interrupted campaigns resume."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.histories.__main__ import main
from tests.histories.campaign import Campaign, Plan, Verdict, summary
from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.recorded.scenario import full_scenario
from tests.histories.recorded.storage import write
from tests.histories.run import Recorder
from tests.histories.systems.faults import FAULTS, Fault, draw
from tests.histories.systems.processes import Process
from tests.histories.systems.shapes import SHAPES
from tests.histories.systems.system import Nats, System
from tests.servers.ports import free_port

ALL = tuple(SHAPES)


def unreachable(home: Path) -> System:
    """Return a system of which nothing was ever started."""
    process = Process(["false"], home / "log", "", {})
    return System({f"127.0.0.1:{free_port()}": process}, Nats("nats://127.0.0.1:1", home), processes=[process])


@pytest.mark.parametrize("seeds", [4, 20, 40, 300])
def test_every_campaign_covers_every_shape(seeds: int) -> None:
    plan = Plan(7, seeds, ALL, tuple(FAULTS))
    groups = list(plan.groups([]))
    counts = Counter(dict.fromkeys(ALL, 0))
    for shape, some in groups:
        counts[shape] += len(some)
    assert sum(counts.values()) == seeds
    assert max(counts.values()) - min(counts.values()) <= 1
    assert sorted(seed for _, some in groups for seed in some) == list(range(7, 7 + seeds))


def test_every_applicable_fault_is_planned(tmp_path: Path) -> None:
    system = unreachable(tmp_path)
    fitting = [name for name in FAULTS if FAULTS[name].fits(system)]
    assert {draw(turn, turn, list(FAULTS), system)[0] for turn in range(len(fitting))} == set(fitting)


def test_interrupted_campaign_resumes(tmp_path: Path) -> None:
    wanted = Plan(-1, 8, ALL, ("nothing",))
    first = Campaign(tmp_path, wanted)
    seed = first.plan.first
    verdict = Verdict(seed, first.plan.shape(seed), ("nothing",), ("ONCE",), 1.0, file="x")
    first._note(verdict, lambda _: None)
    again = Campaign(tmp_path, wanted)
    assert again.plan == first.plan
    assert again.broken == [verdict]
    left = [one for _, seeds in again.plan.groups([seed]) for one in seeds]
    assert sorted(left) == list(range(seed + 1, seed + 8))
    assert Campaign(tmp_path, Plan(-1, 9, ALL, ("nothing",))).verdicts == []


def test_finished_campaign_starts_over(tmp_path: Path) -> None:
    wanted = Plan(5, 1, ("cluster",), ("nothing",))
    first = Campaign(tmp_path, wanted)
    first._note(Verdict(5, "cluster", ("nothing",), (), 1.0), lambda _: None)
    assert Campaign(tmp_path, wanted).verdicts == []


def test_unexpected_error_breaks_history(tmp_path: Path) -> None:
    recorder = Recorder(unreachable(tmp_path))
    history = recorder.record(1, ["nothing"])
    assert [violation.rule for violation in check(history)] == [Rule.NO_FAILURE]
    assert recorder.is_spent


def test_failed_fault_breaks_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strike(_: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr("tests.histories.run.FAULTS", {**FAULTS, "planted": Fault(1, strike)})
    monkeypatch.setattr("tests.histories.systems.faults.FAULTS", {**FAULTS, "planted": Fault(1, strike)})
    with SHAPES["one process"](tmp_path) as system:
        history = Recorder(system).record(1, ["planted"])
    assert "planted" in history.failures[0].text
    assert Rule.NO_FAILURE in {violation.rule for violation in check(history)}
    assert history.operations  # kept for who looks for the cause


def test_saved_history_is_replayed(tmp_path: Path) -> None:
    scenario = full_scenario()
    write(scenario.history, tmp_path / "good.jsonl")
    assert main(["--replay", str(tmp_path / "good.jsonl")]) == 0
    scenario.history.events.pop()
    write(scenario.history, tmp_path / "broken.jsonl")
    assert main(["--replay", str(tmp_path / "good.jsonl"), str(tmp_path / "broken.jsonl")]) == 1


def test_summary_lists_broken_histories() -> None:
    broken = Verdict(1, "cluster", ("nothing",), ("ONCE",), 2.0, file="h1.jsonl")
    lines = list(summary([broken, Verdict(2, "cluster", (), (), 1.0)]))
    assert lines[0] == "2 histories, 1 broken, 0 skipped"
    assert "h1.jsonl" in lines[-1]
