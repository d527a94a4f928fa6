"""Finding runs among many, in many experiments: pages put together are what sorting everything gives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rollforward import v1
from services.times import timestamp
from services.tracking import queries
from services.tracking.scope import FEW
from tests.integration.registry_rows import all_pages
from tests.integration.tracking_rows import TrackingRows, point, tracking_rows

EXPERIMENTS = FEW + 8
RUNS = 1500  # two thirds of them in the first experiment, which takes several steps to walk through


@dataclass(frozen=True)
class Known:
    """What we know of a run."""

    number: int
    experiment: int
    start: int
    acc: float | None
    lr: str | None
    rare: bool
    deleted: bool


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """Many runs."""
    if request.param == "sqlite":
        where = str(tmp_path_factory.mktemp("rows"))
        with tracking_rows(where) as rows:
            yield Many(rows)
        return
    with request.getfixturevalue("postgres").database() as where, tracking_rows(where) as rows:
        yield Many(rows)


class Many:
    """The runs in rows, and what we know of them."""

    def __init__(self, rows: TrackingRows) -> None:
        self.rows = rows
        luck = random.Random(7)
        for number in range(1, EXPERIMENTS + 1):
            rows.experiment(f"experiment {number}")
        self.known = [self._known(number, luck) for number in range(RUNS)]
        rows.append(*(fact for known in self.known for fact in self._facts(known)))

    @staticmethod
    def _known(number: int, luck: random.Random) -> Known:
        experiment = 1 if luck.random() < 0.67 else luck.randint(2, EXPERIMENTS)
        acc = luck.choice([None, math.nan, luck.random(), luck.random(), luck.randint(0, 3) / 4])
        lr = luck.choice([None, "a", "b", "c" * 70, "c" * 69 + "d"])
        return Known(number, experiment, luck.randint(0, 300), acc, lr, luck.random() < 0.01, luck.random() < 0.1)

    @staticmethod
    def _facts(known: Known) -> list[Any]:
        run_id = f"{known.number:032x}"
        started = v1.RunStarted(run_id=run_id, experiment_id=str(known.experiment), name=str(known.number))
        started.start_time.CopyFrom(timestamp(known.start * 1_000_000))
        if known.rare:
            started.tags["rare"] = "yes"
        facts: list[Any] = [started]
        if known.lr is not None:
            facts.append(v1.RunLogged(run_id=run_id, params={"lr": known.lr}))
        if known.acc is not None:
            facts.append(v1.MetricsLogged(run_id=run_id, series=[point("acc", known.acc)]))
        if known.deleted:
            facts.append(v1.RunDeleted(run_id=run_id))
        return facts

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
            found = self.rows.ask(lambda connection: queries.list_runs(connection, request))
            return [int(run.name) for run in found.runs], found.next_page_token

        return all_pages(page)


def by_acc(known: Known, sign: int) -> Any:
    """Numbers, then NaN, then nothing."""
    if known.acc is None:
        return (2, 0, sign * known.number)
    return (1, 0, sign * known.number) if math.isnan(known.acc) else (0, sign * known.acc, sign * known.number)


def by_lr(known: Known) -> Any:
    """The parameter, then the newest."""
    return (known.lr is None, known.lr or "", -known.start, -known.number)


ORDERS: dict[str, Callable[[Known], Any]] = {
    "": lambda known: (-known.start, -known.number),
    "start_time": lambda known: (known.start, known.number),
    "metrics.acc": lambda known: by_acc(known, 1),
    "metrics.acc DESC": lambda known: by_acc(known, -1),
    "params.lr, start_time DESC": by_lr,
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
    "tags.none = 'x'": lambda _: False,
}
SCOPES = {"one": ["1"], "few": ["1", "2", "3"], "all": []}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("order_by", ORDERS)
@pytest.mark.parametrize("asked", FILTERS)
def test_pages_are_what_sorting_everything_gives(many: Many, asked: str, order_by: str, scope: str) -> None:
    among = {int(one) for one in SCOPES[scope]} or set(range(1, EXPERIMENTS + 1))
    found = [known for known in many.known if known.experiment in among and not known.deleted and FILTERS[asked](known)]
    expected = [known.number for known in sorted(found, key=ORDERS[order_by])]
    assert many.listed(asked, order_by, SCOPES[scope], 90) == expected
