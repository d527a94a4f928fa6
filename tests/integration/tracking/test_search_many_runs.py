"""Searching many runs in many experiments: the pages together equal a sort of everything."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rollforward import v1
from services.timestamps import timestamp
from services.tracking.queries import runs
from services.tracking.queries.experiment_scope import FEW
from tests.integration.databases import BOTH, place
from tests.integration.registry.registry_rows import all_pages
from tests.integration.tracking.tracking_rows import TrackingRows, point, tracking_rows

EXPERIMENTS = FEW + 8
RUNS = 600  # two thirds of them in the first experiment, whose index scan takes several steps


@dataclass(frozen=True)
class ExpectedRun:
    """The expected values of a run."""

    number: int
    experiment: int
    start: int
    end: int | None
    name: str
    acc: float | None
    lr: str | None
    rare: bool
    deleted: bool


@pytest.fixture(scope="module", params=BOTH)
def many(request: pytest.FixtureRequest) -> Iterator[ManyRuns]:
    """Yield many runs."""
    with place(request) as where, tracking_rows(where) as rows:
        yield ManyRuns(rows)


class ManyRuns:
    """Runs in rows, and their expected values."""

    def __init__(self, rows: TrackingRows) -> None:
        self.rows = rows
        rng = random.Random(7)
        for number in range(1, EXPERIMENTS + 1):
            rows.experiment(f"experiment {number}")
        self.expected = [self._expected_run(number, rng) for number in range(RUNS)]
        rows.append(*(payload for run in self.expected for payload in self._payloads(run)))

    @staticmethod
    def _expected_run(number: int, rng: random.Random) -> ExpectedRun:
        experiment = 1 if rng.random() < 0.67 else rng.randint(2, EXPERIMENTS)
        acc = rng.choice([None, math.nan, rng.random(), rng.random(), rng.randint(0, 3) / 4])
        lr = rng.choice([None, "a", "b", "c" * 70, "c" * 69 + "d"])
        start, end = rng.randint(0, 300), rng.choice([None, rng.randint(300, 500)])
        name = rng.choice(["run", "Run", "other", f"run {number}"])
        return ExpectedRun(number, experiment, start, end, name, acc, lr, rng.random() < 0.01, rng.random() < 0.1)

    @staticmethod
    def _payloads(run: ExpectedRun) -> list[Any]:
        run_id = f"{run.number:032x}"
        started = v1.RunStarted(run_id=run_id, experiment_id=str(run.experiment), name=run.name)
        started.start_time.CopyFrom(timestamp(run.start * 1_000_000))
        if run.rare:
            started.tags["rare"] = "yes"
        payloads: list[Any] = [started]
        if run.lr is not None:
            payloads.append(v1.RunLogged(run_id=run_id, params={"lr": run.lr}))
        if run.acc is not None:
            payloads.append(v1.MetricsLogged(run_id=run_id, series=[point("acc", run.acc)]))
        if run.end is not None:
            ended = v1.RunFinished(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
            ended.end_time.CopyFrom(timestamp(run.end * 1_000_000))
            payloads.append(ended)
        if run.deleted:
            payloads.append(v1.RunDeleted(run_id=run_id))
        return payloads

    def listed(self, filter_text: str, order_by: str, experiments: list[str], page_size: int) -> list[int]:
        """List runs in pages and return their numbers."""

        def page(token: str) -> tuple[list[int], str]:
            request = v1.ListRunsRequest(
                filter=filter_text,
                order_by=order_by,
                experiment_ids=experiments,
                page_size=page_size,
                page_token=token,
                brief=True,
            )
            found = self.rows.query(lambda connection: runs.list_runs(connection, request))
            return [int(run.run_id, 16) for run in found.runs], found.next_page_token

        return all_pages(page)


def by_acc(run: ExpectedRun, sign: int) -> Any:
    """Return the sort key of the metric: numbers first, then NaN, then missing values."""
    if run.acc is None:
        return (2, 0, sign * run.number)
    return (1, 0, sign * run.number) if math.isnan(run.acc) else (0, sign * run.acc, sign * run.number)


class Descending(str):
    """A text that sorts in descending order."""

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def by_lr(run: ExpectedRun) -> Any:
    """Return the sort key of the parameter, then newest first."""
    return (run.lr is None, run.lr or "", -run.start, -run.number)


ORDERS: dict[str, Callable[[ExpectedRun], Any]] = {
    "": lambda run: (-run.start, -run.number),
    "start_time": lambda run: (run.start, run.number),
    "metrics.acc": lambda run: by_acc(run, 1),
    "metrics.acc DESC": lambda run: by_acc(run, -1),
    "params.lr, start_time DESC": by_lr,
    "metrics.acc DESC, start_time": lambda run: (*by_acc(run, -1)[:2], run.start, run.number),
    "start_time DESC, run_name DESC": lambda run: (-run.start, Descending(run.name), -run.number),
    "end_time": lambda run: (run.end is None, run.end or 0, run.number),
    "end_time DESC": lambda run: (run.end is None, -(run.end or 0), -run.number),
    "run_name": lambda run: (run.name, run.number),
}
FILTERS: dict[str, Callable[[ExpectedRun], bool]] = {
    "": lambda _: True,
    "metrics.acc >= 0.25 AND metrics.acc < 0.9": lambda run: run.acc is not None and 0.25 <= run.acc < 0.9,
    "metrics.acc != 0.5": lambda run: run.acc is not None and run.acc != 0.5,
    "tags.rare = 'yes'": lambda run: run.rare,
    f"params.lr = '{'c' * 70}'": lambda run: run.lr == "c" * 70,
    "params.lr LIKE 'c%' AND start_time > 100": lambda run: str(run.lr)[0] == "c" and run.start > 100,
    "params.lr IN ('a', 'b') AND start_time <= 250 AND metrics.acc > 0.1": (
        lambda run: run.lr in {"a", "b"} and run.start <= 250 and (run.acc or 0) > 0.1
    ),
    "status = 'RUNNING' AND start_time < 200": lambda run: run.end is None and run.start < 200,
    "end_time >= 400": lambda run: run.end is not None and run.end >= 400,
    "run_name IN ('other', 'run 7')": lambda run: run.name in {"other", "run 7"},
    "tags.none = 'x'": lambda _: False,
}
SCOPES: tuple[list[str], ...] = (["1"], ["1", "2", "3"], [])

# Every pair of a filter, an order and a scope occurs.
COMBINATIONS = [
    pytest.param(filter_text, order_by, SCOPES[(row + column) % len(SCOPES)], id=f"{row}-{order_by}")
    for row, filter_text in enumerate(FILTERS)
    for column, order_by in enumerate(ORDERS)
]


@pytest.mark.parametrize(("filter_text", "order_by", "scope"), COMBINATIONS)
def test_pages_equal_sort_of_all_runs(many: ManyRuns, filter_text: str, order_by: str, scope: list[str]) -> None:
    among = {int(experiment) for experiment in scope} or set(range(1, EXPERIMENTS + 1))
    found = [run for run in many.expected if run.experiment in among and not run.deleted and FILTERS[filter_text](run)]
    expected = [run.number for run in sorted(found, key=ORDERS[order_by])]
    assert many.listed(filter_text, order_by, scope, 130) == expected


@pytest.mark.parametrize("order_by", [order for order in ORDERS if "," not in order])
def test_order_of_index_needs_no_sort(many: ManyRuns, order_by: str) -> None:
    request = v1.ListRunsRequest(experiment_id="1", order_by=order_by, page_size=150, brief=True)
    while True:
        found, plans = many.rows.plans(lambda rows: runs.list_runs(rows, request))
        assert len(found.runs) > 1
        assert len(plans) > 2
        assert not [line for line in plans if "TEMP B-TREE" in line or re.search(r"\bSort$", line)]
        if not found.next_page_token:
            break
        request.page_token = found.next_page_token


@pytest.mark.parametrize(
    ("order_by", "reads_all"), [("metrics.acc DESC, params.lr", False), ("params.lr, metrics.acc DESC", True)]
)
def test_only_page_is_sorted_if_first_field_has_index(many: ManyRuns, order_by: str, reads_all: bool) -> None:
    request = v1.ListRunsRequest(experiment_id="1", order_by=order_by, brief=True)
    _, plans = many.rows.plans(lambda rows: runs.list_runs(rows, request))
    assert [line for line in plans if "TEMP B-TREE" in line or re.search(r"\bSort$", line)]
    assert any("walked" in line for line in plans) != reads_all
