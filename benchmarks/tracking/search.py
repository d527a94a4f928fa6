"""Measure how long tracking takes to find runs: pages of 100 out of many, on SQLite and PostgreSQL.

    python -m benchmarks.tracking.search --runs 10000 --on sqlite

Each run has 5 metrics, 10 parameters and 4 tags. What is timed is all that the server does for an answer but the call.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks.tracking.locations import location
from eventstore.projections.database import Database
from eventstore.projections.generation import Generation
from rollforward import v1
from services.tracking.projection import tables as t
from services.tracking.queries import runs

METRICS = ("acc", "auc", "f1", "loss", "time")
PARAMS = tuple(f"param{number}" for number in range(10))
TAGS = ("team", "stage", "note", "code")
EXPERIMENTS = 10
"""In the first one are nine tenths of all runs."""

_AT_ONCE = 10_000
_BEGAN = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """A query by name."""

    name: str
    filter: str = ""
    order_by: str = ""
    every: bool = False
    page: int = 1


QUESTIONS = (
    Question("newest"),
    Question("newest, of all experiments", every=True),
    Question("newest, 10th page", page=10),
    Question("best metric", order_by="metrics.acc DESC"),
    Question("best metric, of all experiments", order_by="metrics.acc DESC", every=True),
    Question("best metric, 10th page", order_by="metrics.acc DESC", page=10),
    Question("metric > 0.9, best first", "metrics.acc > 0.9", "metrics.acc DESC"),
    Question("metric > 0.9, worst first", "metrics.acc > 0.9", "metrics.acc"),
    Question("another metric > 0.9, best first", "metrics.f1 > 0.9", "metrics.acc DESC"),
    Question("parameter of 1 in 100, best first", "params.param3 = '7'", "metrics.acc DESC"),
    Question(
        "two metrics and a tag", "metrics.acc > 0.5 AND metrics.loss < 0.5 AND tags.team = '3'", "metrics.f1 DESC"
    ),
    Question("one tag in 1,000 runs", "tags.code = '7'", "metrics.acc DESC"),
    Question("pattern of a parameter", "params.param1 LIKE '%7%'", "metrics.acc DESC"),
    Question("metric > 0.9, by parameter", "metrics.acc > 0.99", "params.param1, metrics.acc DESC"),
    Question("one run by id", f"run_id = '{7:032x}'"),
)


def write_data(rows: Generation, many: int) -> None:
    """Write runs straight to the rows."""
    indexes = [index for table in t.tables.sorted_tables for index in table.indexes]
    with rows.writing() as connection:
        for index in indexes:
            index.drop(connection)
        experiments = [(number, f"experiment {number}", _BEGAN, _BEGAN, "Zoë", False) for number in range(1, 11)]
        _put(connection, t.experiments, experiments)
        for start in range(1, many + 1, _AT_ONCE):
            _write_some(connection, range(start, min(many + 1, start + _AT_ONCE)))
        for index in indexes:
            index.create(connection)
    with rows.writing() as connection:
        if connection.dialect.name == "postgresql":  # which does so itself, a minute later
            connection.exec_driver_sql("ANALYZE")


def _write_some(connection: sa.Connection, numbers: range) -> None:
    luck = random.Random(numbers.start)
    experiments = {number: 1 if luck.random() < 0.9 else luck.randint(2, EXPERIMENTS) for number in numbers}
    _put(connection, t.runs, [_run(number, experiments[number]) for number in numbers])
    _put(connection, t.params, [row for number in numbers for row in _labels(number, PARAMS, luck)])
    _put(connection, t.tags, [row for number in numbers for row in _labels(number, TAGS, luck)])
    _put(connection, t.metrics, [row for number in numbers for row in _metrics(number, experiments[number], luck)])


def _run(number: int, experiment: int) -> tuple[Any, ...]:
    began = _BEGAN + number * 1_000_000_000
    known = (number, f"{number:032x}", experiment, f"run {number}", v1.RUN_STATUS_FINISHED, began, began + 10**9)
    return (*known, "Zoë", "", False, None, False, "", b"")


def _labels(number: int, keys: Sequence[str], luck: random.Random) -> Iterator[tuple[Any, ...]]:
    for key in keys:
        value = str(luck.randrange(1000 if key == "code" else 10 if key == "team" else 100))
        yield number, key, value, value


def _metrics(number: int, experiment: int, luck: random.Random) -> Iterator[tuple[Any, ...]]:
    for key in METRICS:
        value = luck.random()
        yield number, key, experiment, 100, _BEGAN // 10**6, value, value / 2, value, 100


def _put(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    if connection.dialect.name == "postgresql":
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    places = ", ".join("?" * len(table.columns))
    connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", list(rows))  # noqa: S608


def ask(rows: Generation, statement: Question, token: str) -> v1.ListRunsResponse:
    """Read a page of 100 runs."""
    request = v1.ListRunsRequest(
        experiment_id="" if statement.every else "1",
        filter=statement.filter,
        order_by=statement.order_by,
        page_token=token,
    )
    with rows.transaction() as connection:
        return runs.list_runs(connection, request)


def measure(rows: Generation, statement: Question, times: int) -> tuple[int, float, float]:
    """Return the number of runs on the page, and p50 and p95 in milliseconds."""
    token = ""
    for _ in range(statement.page - 1):
        token = ask(rows, statement, token).next_page_token
    found = ask(rows, statement, token)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ask(rows, statement, token).SerializeToString()
        took.append((time.perf_counter() - began) * 1000)
    return len(found.runs), statistics.median(took), statistics.quantiles(took, n=20)[-1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="a directory in which SQLite's rows stay, to be asked again")
    options = parser.parse_args()
    console = Console()
    with location(options.on) as where:
        kept = options.keep and options.keep.exists()
        rows = Database(str(options.keep or where)).open("tracking", "0" * 10, 1, t.tables)
        began = time.perf_counter()
        if not kept:
            write_data(rows, options.runs)
        console.print(f"{options.runs:,} runs on {options.on}, laid in {time.perf_counter() - began:.0f} s")
        table = Table("a page of 100", "runs", "p50 ms", "p95 ms")
        for statement in QUESTIONS:
            many, p50, p95 = measure(rows, statement, options.times)
            table.add_row(statement.name, str(many), f"{p50:.1f}", f"{p95:.1f}")
        console.print(table)
        rows.close()


if __name__ == "__main__":
    main()
