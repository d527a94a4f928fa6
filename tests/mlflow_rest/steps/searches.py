"""Searches of runs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import RUNS, START, Step, pairs, post


def searches() -> Iterator[Step]:
    """Yield all of them."""
    yield from _runs_to_find()
    yield from _filters()
    yield from _wrong_filters()
    yield from _orders()
    yield from _pages()


def _runs_to_find() -> Iterator[Step]:
    """Runs to be found."""
    for number in range(12):
        keep = {f"s{number}": "run.info.run_id"}
        yield post(
            f"{RUNS}/create",
            keep,
            experiment_id="$e2",
            user_id="ann",
            start_time=START + number,
            run_name=f"run {number:02}",
        )
        yield post(
            f"{RUNS}/log-batch",
            run_id=f"$s{number}",
            metrics=[{"key": "acc", "value": number / 10, "timestamp": START, "step": 0}] if number % 4 else [],
            params=pairs(model="tree" if number % 2 else "line", depth=str(number)),
            tags=pairs(owner="ann" if number % 3 else "bob"),
        )
    for number in (3, 7):
        yield post(f"{RUNS}/update", run_id=f"$s{number}", status="FINISHED", end_time=START + 100 + number)
    yield post(f"{RUNS}/delete", run_id="$s11")


def _filters() -> Iterator[Step]:
    """Filters."""
    for wanted in (
        "",
        "metrics.acc > 0.5",
        "metrics.acc >= 0.5 AND metrics.acc < 1",
        "metrics.acc = 0.7",
        "metrics.acc != 0.7",
        "metric.acc <= 0.2",
        "metrics.`acc` > 0.5",
        'metrics."acc" > 0.5',
        "metrics.nothing > 0",
        "params.model = 'tree'",
        "params.model != 'tree'",
        "param.model LIKE 't%'",
        "parameters.model ILIKE 'T%'",
        "params.depth = '10'",
        "tags.owner = 'bob'",
        "tag.owner != 'bob'",
        "tags.owner LIKE '%n%'",
        "tags.missing = 'x'",
        "attributes.status = 'FINISHED'",
        "status = 'RUNNING'",
        "attributes.status != 'RUNNING'",
        "attributes.run_name = 'run 03'",
        "run_name LIKE 'run 1%'",
        "attributes.start_time > 1700000000005",
        "start_time <= 1700000000002",
        "attribute.user_id = 'ann'",
        "attributes.run_id = '$s4'",
        "run_id IN ('$s4','$s5')",
        "run_id NOT IN ('$s4','$s5')",
        "end_time > 1700000000103",
        "params.model = 'tree' and metrics.acc > 0.2 and tags.owner = 'ann'",
        "tags.`mlflow.runName` = 'run 05'",
        "params.model IS NOT NULL",
        "params.nothing IS NULL",
    ):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], filter=wanted, max_results=50)


def _wrong_filters() -> Iterator[Step]:
    """Filters with faults."""
    for bad in (
        "metrics.acc > 'high'",
        "metrics.acc LIKE '1'",
        "params.model > 'a'",
        "params.model = tree",
        "status > 'RUNNING'",
        "metrics.acc >",
        "metrics.acc > 0.5 OR metrics.acc < 0.1",
        "(metrics.acc > 0.5)",
        "unknown.acc > 1",
        "acc > 1",
        "metrics.acc = 0.5 AND",
        "attributes.nothing = 'x'",
        "start_time = 'yesterday'",
        "params.model = 'tree' params.depth = '1'",
        "run_id IN ('a', 5)",
    ):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], filter=bad)


def _orders() -> Iterator[Step]:
    """Orders."""
    for order in (
        ["metrics.acc DESC"],
        ["metrics.acc ASC"],
        ["params.depth"],
        ["tags.owner DESC", "start_time ASC"],
        ["attributes.start_time ASC"],
        ["start_time DESC"],
        ["run_name DESC"],
        ["attributes.status", "metrics.acc DESC"],
        ["end_time DESC"],
    ):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], order_by=order)
    for bad_order in (["metrics.acc UPWARDS"], ["nothing"], ["metrics"], ["acc DESC"]):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], order_by=bad_order)


def _pages() -> Iterator[Step]:
    """Views and pages."""
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", "SOME"):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], run_view_type=view)
    yield post(
        f"{RUNS}/search", {"more": "next_page_token"}, ["next_page_token"], experiment_ids=["$e2"], max_results=5
    )
    yield post(
        f"{RUNS}/search",
        {"last": "next_page_token"},
        ["next_page_token"],
        experiment_ids=["$e2"],
        max_results=5,
        page_token="$more",
    )
    yield post(f"{RUNS}/search", loose=["next_page_token"], experiment_ids=["$e2"], max_results=5, page_token="$last")
    yield post(f"{RUNS}/search", experiment_ids=[])
    yield post(f"{RUNS}/search")
    yield post(f"{RUNS}/search", experiment_ids=["99999"])
    yield post(f"{RUNS}/search", experiment_ids=["$e3"])
    for number in (0, -5, 50001, "x"):
        yield post(f"{RUNS}/search", experiment_ids=["$e2"], max_results=number)
