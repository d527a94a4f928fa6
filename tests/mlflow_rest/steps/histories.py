"""Histories of metrics."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import METRICS, NO_RUN, Step, get


def histories() -> Iterator[Step]:
    for run in ("$r1", "$r2"):
        for key in ("loss", "m1", "nan", "nothing"):
            yield get(f"{METRICS}/get-history", run_id=run, metric_key=key)
    yield get(f"{METRICS}/get-history", run_id=NO_RUN, metric_key="loss")
    yield get(f"{METRICS}/get-history", run_id="$r1")
    yield get(f"{METRICS}/get-history", metric_key="loss")
    yield get(
        f"{METRICS}/get-history",
        {"points": "next_page_token"},
        ["next_page_token"],
        run_id="$r1",
        metric_key="loss",
        max_results=2,
    )
    yield get(
        f"{METRICS}/get-history",
        loose=["next_page_token"],
        run_id="$r1",
        metric_key="loss",
        max_results=2,
        page_token="$points",
    )
    for fields in (
        {"run_ids": ["$s1"], "metric_key": "acc"},
        {"run_ids": ["$s1", "$s2", "$s4"], "metric_key": "acc"},
        {"run_ids": ["$r1"], "metric_key": "loss"},
        {"run_ids": ["$r1"], "metric_key": "loss", "start_step": 1, "end_step": 2},
        {"run_ids": ["$r1"], "metric_key": "loss", "start_step": 1},
        {"run_ids": ["$r1"], "metric_key": "loss", "start_step": 2, "end_step": 1},
        {"run_ids": ["$r1"], "metric_key": "nothing"},
        {"run_ids": ["$r1"]},
        {"metric_key": "loss"},
        {"run_ids": ["$r1"], "metric_key": "loss", "max_results": 0},
        {"run_ids": ["$r1"], "metric_key": "loss", "max_results": 2501},
    ):
        yield get(f"{METRICS}/get-history-bulk-interval", **fields)
