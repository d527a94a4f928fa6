"""Finding runs among many, in many experiments: pages put together are what sorting everything gives."""

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
RUNS = 600  # two thirds of them in the first experiment, which takes several steps to walk through


@dataclass(frozen=True)
class Known:
    """What we know of a run."""

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
def many(request: pytest.FixtureRequest) -> Iterator[Many]:
    """Many runs."""
    with place(request) as where, tracking_rows(where) as rows:
        yield Many(rows)


class Many:
    """The runs in rows, and what we know of them."""

    def __init__(self, rows: TrackingRows) -> None:
        self.rows = rows
        luck = random.Random(7)
        for number in range(1, EXPERIMENTS + 1):
            rows.experiment(f"experiment {number}")
        self.known = [self._known(number, luck) for number in range(RUNS)]
        rows.append(*(payload for known in self.known for payload in self._payloads(known)))

    @staticmethod
    def _known(number: int, luck: random.Random) -> Known:
        experiment = 1 if luck.random() < 0.67 else luck.randint(2, EXPERIMENTS)
        acc = luck.choice([None, math.nan, luck.random(), luck.random(), luck.randint(0, 3) / 4])
        lr = luck.choice([None, "a", "b", "c" * 70, "c" * 69 + "d"])
        start, end = luck.randint(0, 300), luck.choice([None, luck.randint(300, 500)])
        name = luck.choice(["run", "Run", "other", f"run {number}"])
        return Known(number, experiment, start, end, name, acc, lr, luck.random() < 0.01, luck.random() < 0.1)

    @staticmethod
    def _payloads(known: Known) -> list[Any]:
        run_id = f"{known.number:032x}"
        started = v1.RunStarted(run_id=run_id, experiment_id=str(known.experiment), name=known.name)
        started.start_time.CopyFrom(timestamp(known.start * 1_000_000))
        if known.rare:
            started.tags["rare"] = "yes"
        payloads: list[Any] = [started]
        if known.lr is not None:
            payloads.append(v1.RunLogged(run_id=run_id, params={"lr": known.lr}))
        if known.acc is not None:
            payloads.append(v1.MetricsLogged(run_id=run_id, series=[point("acc", known.acc)]))
        if known.end is not None:
            ended = v1.RunFinished(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
            ended.end_time.CopyFrom(timestamp(known.end * 1_000_000))
            payloads.append(ended)
        if known.deleted:
            payloads.append(v1.RunDeleted(run_id=run_id))
        return payloads

    def listed(self, asked: str, order_by: str, experiments: list[str], page_size: int) -> list[int]:
        """The numbers of the runs that are listed."""

        def page(token: str) -> tuple[list[int], str]:
            request = v1.ListRunsRequest(
                filter=asked,
                order_by=order_by,
                experiment_ids=experiments,
                page_size=page_size,
                page_token=token,
                brief=True,
            )
            found = self.rows.ask(lambda connection: runs.list_runs(connection, request))
            return [int(run.run_id, 16) for run in found.runs], found.next_page_token

        return all_pages(page)


def by_acc(known: Known, sign: int) -> Any:
    """Numbers, then NaN, then nothing."""
    if known.acc is None:
        return (2, 0, sign * known.number)
    return (1, 0, sign * known.number) if math.isnan(known.acc) else (0, sign * known.acc, sign * known.number)


class Descending(str):
    """A text that comes before those that it is behind of."""

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def by_lr(known: Known) -> Any:
    """The parameter, then the newest."""
    return (known.lr is None, known.lr or "", -known.start, -known.number)


ORDERS: dict[str, Callable[[Known], Any]] = {
    "": lambda known: (-known.start, -known.number),
    "start_time": lambda known: (known.start, known.number),
    "metrics.acc": lambda known: by_acc(known, 1),
    "metrics.acc DESC": lambda known: by_acc(known, -1),
    "params.lr, start_time DESC": by_lr,
    "metrics.acc DESC, start_time": lambda known: (*by_acc(known, -1)[:2], known.start, known.number),
    "start_time DESC, run_name DESC": lambda known: (-known.start, Descending(known.name), -known.number),
    "end_time": lambda known: (known.end is None, known.end or 0, known.number),
    "end_time DESC": lambda known: (known.end is None, -(known.end or 0), -known.number),
    "run_name": lambda known: (known.name, known.number),
}
FILTERS: dict[str, Callable[[Known], bool]] = {
    "": lambda _: True,
    "metrics.acc >= 0.25 AND metrics.acc < 0.9": lambda known: known.acc is not None and 0.25 <= known.acc < 0.9,
    "metrics.acc != 0.5": lambda known: known.acc is not None and known.acc != 0.5,
    "tags.rare = 'yes'": lambda known: known.rare,
    f"params.lr = '{'c' * 70}'": lambda known: known.lr == "c" * 70,
    "params.lr LIKE 'c%' AND start_time > 100": lambda known: str(known.lr)[0] == "c" and known.start > 100,
    "params.lr IN ('a', 'b') AND start_time <= 250 AND metrics.acc > 0.1": (
        lambda known: known.lr in {"a", "b"} and known.start <= 250 and (known.acc or 0) > 0.1
    ),
    "status = 'RUNNING' AND start_time < 200": lambda known: known.end is None and known.start < 200,
    "end_time >= 400": lambda known: known.end is not None and known.end >= 400,
    "run_name IN ('other', 'run 7')": lambda known: known.name in {"other", "run 7"},
    "tags.none = 'x'": lambda _: False,
}
SCOPES: tuple[list[str], ...] = (["1"], ["1", "2", "3"], [])

# Every two of a filter, an order and a scope meet.
MEETINGS = [
    pytest.param(asked, order_by, SCOPES[(row + column) % len(SCOPES)], id=f"{row}-{order_by}")
    for row, asked in enumerate(FILTERS)
    for column, order_by in enumerate(ORDERS)
]


@pytest.mark.parametrize(("asked", "order_by", "scope"), MEETINGS)
def test_pages_are_what_sorting_everything_gives(many: Many, asked: str, order_by: str, scope: list[str]) -> None:
    among = {int(one) for one in scope} or set(range(1, EXPERIMENTS + 1))
    found = [known for known in many.known if known.experiment in among and not known.deleted and FILTERS[asked](known)]
    expected = [known.number for known in sorted(found, key=ORDERS[order_by])]
    assert many.listed(asked, order_by, scope, 130) == expected


@pytest.mark.parametrize("order_by", [order for order in ORDERS if "," not in order])
def test_nothing_is_sorted_where_an_index_has_the_order(many: Many, order_by: str) -> None:
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
    ("order_by", "all_are_read"), [("metrics.acc DESC, params.lr", False), ("params.lr, metrics.acc DESC", True)]
)
def test_what_the_first_field_decides_is_not_sorted(many: Many, order_by: str, all_are_read: bool) -> None:
    request = v1.ListRunsRequest(experiment_id="1", order_by=order_by, brief=True)
    _, plans = many.rows.plans(lambda rows: runs.list_runs(rows, request))
    assert [line for line in plans if "TEMP B-TREE" in line or re.search(r"\bSort$", line)]
    assert any("walked" in line for line in plans) != all_are_read
