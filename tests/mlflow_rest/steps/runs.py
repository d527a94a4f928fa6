"""Requests that make, change and delete runs, and log to them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import NO_RUN, RUNS, START, Step, get, pairs, post


def runs() -> Iterator[Step]:
    """Yield all of them."""
    yield from _created()
    yield from _metrics()
    yield from _params()
    yield from _tags()
    yield from _batches()
    yield from _updated()
    yield from _deleted()


def _created() -> Iterator[Step]:
    """Requests that create."""
    generated = ["run.info.run_name", "run.data.tags.mlflow.runName"]
    yield post(
        f"{RUNS}/create", {"r0": "run.info.run_id"}, generated, experiment_id="$e0", user_id="ann", start_time=START
    )
    yield post(
        f"{RUNS}/create",
        {"r1": "run.info.run_id"},
        experiment_id="$e0",
        user_id="bob",
        start_time=START + 1,
        run_name="named",
        tags=pairs(a="1", b="two words"),
    )
    yield post(
        f"{RUNS}/create",
        {"r2": "run.info.run_id"},
        experiment_id="$e0",
        start_time=START + 2,
        tags=[{"key": "mlflow.runName", "value": "by tag"}],
    )
    yield post(
        f"{RUNS}/create",
        experiment_id="$e0",
        start_time=START,
        run_name="x",
        tags=[{"key": "mlflow.runName", "value": "y"}],
    )
    yield post(
        f"{RUNS}/create",
        {"r3": "run.info.run_id"},
        experiment_id="$e0",
        start_time=START + 3,
        run_name="child",
        tags=[{"key": "mlflow.parentRunId", "value": "$r1"}, {"key": "mlflow.note.content", "value": "about it"}],
    )
    yield post(f"{RUNS}/create", experiment_id="99999", start_time=START, run_name="lost")
    yield post(f"{RUNS}/create", experiment_id="words", start_time=START, run_name="lost")
    for number in range(4):
        yield get(f"{RUNS}/get", loose=generated, run_id=f"$r{number}")
    yield get(f"{RUNS}/get", loose=generated, run_uuid="$r0")
    yield get(f"{RUNS}/get", run_id=NO_RUN)
    yield get(f"{RUNS}/get", run_id="short")


def _metrics() -> Iterator[Step]:
    """Points of metrics."""
    for key, value, step in (
        ("loss", 0.5, 0),
        ("loss", 0.25, 1),
        ("loss", 0.125, 2),
        ("loss", 9.0, 1),
        ("acc", 1, 0),
        ("neg", -1.5e-300, -4),
        ("big", 1.7976931348623157e308, 9_000_000_000),
        ("nan", "NaN", 0),
        ("inf", "Infinity", 0),
        ("a/b.c d-e", 3.0, 0),
    ):
        yield post(
            f"{RUNS}/log-metric", run_id="$r1", key=key, value=value, timestamp=START + 10 + abs(step) % 100, step=step
        )
    yield post(f"{RUNS}/log-metric", run_id="$r1", key="nostep", value=1.0, timestamp=START)
    yield get(f"{RUNS}/get", run_id="$r1")
    for bad in (
        {"key": "m", "value": "high", "timestamp": START},
        {"key": "m", "value": 1.0},
        {"key": "m", "timestamp": START},
        {"value": 1.0, "timestamp": START},
        {"key": "", "value": 1.0, "timestamp": START},
        {"key": "k" * 251, "value": 1.0, "timestamp": START},
        {"key": "bad\tkey", "value": 1.0, "timestamp": START},
        {"key": "../x", "value": 1.0, "timestamp": START},
        {"key": "/x", "value": 1.0, "timestamp": START},
        {"key": "m", "value": 1.0, "timestamp": "now"},
        {"key": "m", "value": 1.0, "timestamp": START, "step": "one"},
        {"key": 7, "value": 1.0, "timestamp": START},
    ):
        yield post(f"{RUNS}/log-metric", run_id="$r1", **bad)
    yield post(f"{RUNS}/log-metric", run_id=NO_RUN, key="m", value=1.0, timestamp=START)
    yield post(f"{RUNS}/log-metric", key="m", value=1.0, timestamp=START)


def _params() -> Iterator[Step]:
    """Parameters."""
    for key, value in (
        ("lr", "0.1"),
        ("depth", "7"),
        ("empty", ""),
        ("long", "v" * 6000),
        ("a/b.c d-e", "x"),
        ("ünï", "çø"),
    ):
        yield post(f"{RUNS}/log-parameter", run_id="$r1", key=key, value=value)
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="lr", value="0.1")
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="lr", value="0.2")
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="longer", value="v" * 6001)
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="", value="v")
    yield post(f"{RUNS}/log-parameter", run_id="$r1", value="v")
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="novalue")
    yield post(f"{RUNS}/log-parameter", run_id=NO_RUN, key="k", value="v")
    yield post(f"{RUNS}/log-parameter", run_id="$r1", key="k" * 251, value="v")


def _tags() -> Iterator[Step]:
    """Tags."""
    for key, value in (("a", "changed"), ("new", "tag"), ("long", "v" * 8000), ("mlflow.note.content", "noted")):
        yield post(f"{RUNS}/set-tag", run_id="$r1", key=key, value=value)
    yield post(f"{RUNS}/set-tag", run_id="$r1", key="toolong", value="v" * 8001)
    yield post(f"{RUNS}/set-tag", run_id="$r1", key="", value="v")
    yield post(f"{RUNS}/set-tag", run_id="$r1", key="k" * 251, value="v")
    yield post(f"{RUNS}/set-tag", run_id=NO_RUN, key="k", value="v")
    yield post(f"{RUNS}/set-tag", run_id="$r1", value="v")
    yield post(f"{RUNS}/delete-tag", run_id="$r1", key="new")
    yield post(f"{RUNS}/delete-tag", run_id="$r1", key="new")
    yield post(f"{RUNS}/delete-tag", run_id=NO_RUN, key="new")
    yield get(f"{RUNS}/get", run_id="$r1")


def _batches() -> Iterator[Step]:
    """Batches."""
    yield post(
        f"{RUNS}/log-batch",
        run_id="$r2",
        metrics=[
            {"key": f"m{number}", "value": number / 2, "timestamp": START + number, "step": number}
            for number in range(5)
        ],
        params=pairs(p1="1", p2="2"),
        tags=pairs(t1="1", t2="2"),
    )
    yield get(f"{RUNS}/get", run_id="$r2")
    yield post(f"{RUNS}/log-batch", run_id="$r2")
    yield post(f"{RUNS}/log-batch", run_id="$r2", params=pairs(p1="other", p9="9"))
    yield post(f"{RUNS}/log-batch", run_id="$r2", params=[*pairs(q="1"), *pairs(q="2")])
    yield post(f"{RUNS}/log-batch", run_id="$r2", params=[{"key": f"p{number}", "value": "x"} for number in range(101)])
    yield post(f"{RUNS}/log-batch", run_id="$r2", tags=[{"key": f"t{number}", "value": "x"} for number in range(101)])
    yield post(
        f"{RUNS}/log-batch",
        run_id="$r2",
        metrics=[{"key": "m", "value": 1.0, "timestamp": START, "step": number} for number in range(1001)],
    )
    yield post(f"{RUNS}/log-batch", run_id="$r2", metrics=[{"key": "m", "value": 1.0}])
    yield post(f"{RUNS}/log-batch", run_id="$r2", metrics="m")
    yield post(f"{RUNS}/log-batch", run_id="$r2", params={"a": "b"})
    yield post(f"{RUNS}/log-batch", run_id=NO_RUN, params=pairs(a="b"))
    yield post(f"{RUNS}/log-batch", params=pairs(a="b"))
    yield get(f"{RUNS}/get", run_id="$r2")


def _updated() -> Iterator[Step]:
    """Requests that change statuses and names."""
    yield post(f"{RUNS}/update", run_id="$r1", status="FINISHED", end_time=START + 1000)
    yield get(f"{RUNS}/get", run_id="$r1")
    yield post(f"{RUNS}/update", run_id="$r2", status="FAILED", end_time=START + 2000)
    yield post(f"{RUNS}/update", run_id="$r2", run_name="another name")
    yield get(f"{RUNS}/get", run_id="$r2")
    yield post(f"{RUNS}/update", run_id="$r2", status="EXPLODED")
    yield post(f"{RUNS}/update", run_id=NO_RUN, status="FINISHED")
    yield post(f"{RUNS}/update", run_id="$r3", status="KILLED", end_time=START + 3000, run_name="both")
    yield get(f"{RUNS}/get", run_id="$r3")


def _deleted() -> Iterator[Step]:
    """Requests that delete and restore."""
    yield post(f"{RUNS}/delete", run_id="$r3")
    yield post(f"{RUNS}/delete", run_id="$r3")
    yield post(f"{RUNS}/delete", run_id=NO_RUN)
    yield get(f"{RUNS}/get", run_id="$r3")
    yield post(f"{RUNS}/log-parameter", run_id="$r3", key="late", value="x")
    yield post(f"{RUNS}/set-tag", run_id="$r3", key="late", value="x")
    yield post(f"{RUNS}/update", run_id="$r3", status="FINISHED")
    yield post(f"{RUNS}/restore", run_id="$r3")
    yield post(f"{RUNS}/restore", run_id=NO_RUN)
    yield get(f"{RUNS}/get", run_id="$r3")
