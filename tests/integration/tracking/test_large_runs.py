"""Large objects stay readable: runs and logged models with more metrics than fit in a response, in every call."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import rollforward as rf
from rollforward import v1
from rollforward._series import pack
from rollforward.cli.output.truncation import MAX_ROWS
from tests.e2e.program import until
from tests.integration.cli.command_line import Cli, answer, done
from tests.integration.up import SECONDS, Up, new_id

METRICS = 20_000
PER_BATCH = 2_500


def name_of(number: int) -> str:
    """Return a name of maximum length."""
    return f"layers.{number:05}." + "w" * (250 - 13)


class LargeObjects(NamedTuple):
    """An experiment with a run and a logged model of maximum size, and a small run."""

    experiment: str
    run: str
    model: str
    small: str


@pytest.fixture(scope="module")
def client(system: Up) -> Iterator[rf.Client]:
    with rf.Client(system.address) as connection:
        yield connection


@pytest.fixture(scope="module")
def large(client: rf.Client) -> LargeObjects:
    experiment, run, model, small = f"e-{new_id()}", new_id(), f"m-{new_id()}", new_id()
    params = {f"p{number:03}-{'k' * 240}": "v" * 5_700 for number in range(490)}
    for run_id in (small, run):
        with client.runs.start(experiment, run_id=run_id, heartbeat=False) as live:
            live.log_metric("loss", 0.5)
    client.logged_models.create(experiment, "large", model_id=model)
    for start in range(0, 490, 100):
        part = dict(list(params.items())[start : start + 100])
        client.connection.call(client.connection.tracking.LogBatch, v1.LogBatchRequest(run_id=run, params=part))
        client.logged_models.log_params(model, part)
    for start in range(0, METRICS, PER_BATCH):
        series = [pack(name_of(number), *point(number)) for number in range(start, start + PER_BATCH)]
        for large_series in series:
            large_series.model_id = model
        client.connection.call(client.connection.tracking.LogBatch, v1.LogBatchRequest(run_id=run, series=series))
    until(lambda: _is_shown(client, run), "the rows have all metrics")
    return LargeObjects(experiment, run, model, small)


def _is_shown(client: rf.Client, run: str) -> bool:
    # The rows of so many series take a while; a query that waits for them may time out meanwhile.
    try:
        return bool(
            client.connection.call(
                client.connection.tracking.GetRun, v1.GetRunRequest(run_id=run, without_metrics=True)
            )
        )
    except rf.Unavailable:
        return False


def point(number: int) -> tuple[array[int], array[int], array[float]]:
    return array("q", [number]), array("q", [7]), array("d", [float(number)])


def check_complete(run: v1.Run) -> None:
    assert run.next_metrics_token == ""
    assert len(run.params) == 490
    assert len(run.metrics) == METRICS + 1
    assert all(run.metrics[name_of(number)].last == number for number in range(METRICS))


def test_run_is_read_completely(client: rf.Client, large: LargeObjects) -> None:
    check_complete(client.runs.get(large.run))
    found = client.runs.search(large.experiment)
    assert [run.run_id for run in found] == [large.run, large.small]
    check_complete(found[0])
    assert found[1].metrics["loss"].last == 0.5
    compared = client.runs.compare([large.small, large.run])
    check_complete(compared.runs[1])
    assert len(compared.metrics) == METRICS + 1


def test_large_run_is_listed_and_filtered(client: rf.Client, large: LargeObjects) -> None:
    assert large.run in [run.run_id for run in client.runs.search(limit=3)]
    found = client.runs.search(filter=f"metrics.`{name_of(5)}` = 5", order_by="metrics.loss")
    assert [run.run_id for run in found] == [large.run]


def test_omitted_metrics_are_announced_and_paged(system: Up, large: LargeObjects) -> None:
    run = system.tracking.GetRun(v1.GetRunRequest(run_id=large.run), timeout=SECONDS).run
    assert run.next_metrics_token
    assert 0 < len(run.metrics) < METRICS
    assert sorted(run.metrics) == [name_of(number) for number in range(len(run.metrics))]
    token, names = "", set(run.metrics)
    for size in (1, 7, 0, 50_000):
        request = v1.ListRunMetricsRequest(run_id=large.run, page_size=size, page_token=token)
        page = system.tracking.ListRunMetrics(request, timeout=SECONDS)
        assert len(page.metrics) == size or size in (0, 50_000)
        token = page.next_page_token
    request = v1.ListRunMetricsRequest(run_id=large.run, page_token=run.next_metrics_token)
    while request.page_token:
        page = system.tracking.ListRunMetrics(request, timeout=SECONDS)
        assert not names & set(page.metrics)
        names |= set(page.metrics)
        request.page_token = page.next_page_token
    assert len(names) == METRICS + 1
    without = v1.GetRunRequest(run_id=large.run, without_metrics=True)
    run = system.tracking.GetRun(without, timeout=SECONDS).run
    assert (len(run.metrics), run.next_metrics_token, len(run.params)) == (0, "", 490)


def test_invalid_page_of_metrics_is_rejected(system: Up, large: LargeObjects) -> None:
    request = v1.ListRunMetricsRequest(run_id=large.run, page_token="?")
    assert system.refused(system.tracking.ListRunMetrics, request).reason == "INVALID_PAGE"
    request = v1.ListRunMetricsRequest(run_id=new_id())
    assert system.refused(system.tracking.ListRunMetrics, request).reason == "RUN_NOT_FOUND"
    of_model = v1.ListLoggedModelMetricsRequest(model_id=large.model, page_token="WyIiXQ==")
    assert system.refused(system.logged_models.ListLoggedModelMetrics, of_model).reason == "INVALID_PAGE"
    of_model = v1.ListLoggedModelMetricsRequest(model_id=f"m-{new_id()}")
    assert system.refused(system.logged_models.ListLoggedModelMetrics, of_model).reason == "LOGGED_MODEL_NOT_FOUND"


def test_logged_model_is_read_completely(client: rf.Client, large: LargeObjects) -> None:
    (found,) = client.logged_models.search(large.experiment)
    for model in (found, client.logged_models.get(large.model)):
        assert model.next_metrics_token == ""
        assert len(model.params) == 490
        assert [metric.key for metric in model.metrics] == [name_of(number) for number in range(METRICS)]


@pytest.mark.parametrize("kind", ["run", "experiment"])
def test_watch_starts_with_complete_runs(client: rf.Client, large: LargeObjects, kind: str) -> None:
    target = {"run": large.run} if kind == "run" else {"experiment": large.experiment}
    with client.runs.watch(**target) as watched:  # type: ignore[arg-type]
        assert [run.run_id for run in watched.runs] == ([large.small] if kind == "experiment" else []) + [large.run]
        check_complete(watched.runs[-1])


def test_run_is_resumed_without_its_metrics(client: rf.Client, large: LargeObjects) -> None:
    with client.runs.resume(large.run, heartbeat=False) as resumed:
        assert resumed.experiment_id
        with pytest.raises(rf.PreconditionFailed) as changed:
            resumed.log_param(f"p000-{'k' * 240}", "other")
        assert changed.value.reason == "PARAM_CHANGED"


def test_command_line_shows_large_objects(cli: Cli, large: LargeObjects) -> None:
    for command in (
        ["runs", "list", "--experiment", large.experiment],
        ["runs", "show", large.run],
        ["runs", "compare", large.run, large.small],
        ["runs", "metrics", large.run, name_of(5)],
        ["runs", "tag", large.run, "team=vision"],
        ["experiments", "show", large.experiment],
        ["logged-models", "show", large.model],
        ["logged-models", "list", "--experiment", large.experiment],
    ):
        assert done(cli(*command))


def test_table_tells_number_of_omitted_rows(cli: Cli, large: LargeObjects) -> None:
    printed = done(cli("runs", "show", large.run))
    assert f"... {METRICS + 1 - MAX_ROWS} more" in printed
    assert len(answer(cli("runs", "show", large.run, "-o", "json"))["metrics"]) == METRICS + 1


def test_gates_evaluate_large_run(system: Up, client: rf.Client, large: LargeObjects, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with client.runs.resume(large.run, heartbeat=False) as run:
        run.log_artifact(tmp_path / "model.bin")
    model = f"m-{new_id()}"
    client.models.create(model, gate=f'run.metrics["{name_of(7)}"] > 6.0')
    version = client.versions.register(model, run, artifact="model.bin")
    assert version.evidence.ByteSize() < 10_000
    assert client.versions.get(model, 1) == version
    client.models.set_registration_gate(model, "run.metrics.all(name, run.metrics[name] >= 1.0)")
    # The evidence would contain all metrics.
    with pytest.raises(rf.InvalidRequest) as refused:
        client.versions.register(model, run, artifact="model.bin")
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
    assert client.models.get(model).latest_version == 1
