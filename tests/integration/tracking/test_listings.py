"""Listing experiments and logged models: SQLite and PostgreSQL agree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eventstore.errors import Rejected
from rollforward import v1
from services.tracking.queries import runs
from services.tracking.queries.listings import MAX_DATASETS
from tests.integration.databases import BOTH, place
from tests.integration.registry.registry_rows import all_pages
from tests.integration.tracking.tracking_rows import BEGAN_MS, TrackingRows, point, tracking_rows


@pytest.fixture(scope="module", params=BOTH)
def rows(request: pytest.FixtureRequest) -> Iterator[TrackingRows]:
    """Yield rows that tests only read."""
    with place(request) as location, tracking_rows(location) as empty:
        yield write_examples(empty)


@pytest.fixture(params=BOTH)
def own_rows(request: pytest.FixtureRequest) -> Iterator[TrackingRows]:
    """Yield the same rows, for a test that writes."""
    with place(request) as location, tracking_rows(location) as empty:
        yield write_examples(empty)


def write_examples(rows: TrackingRows) -> TrackingRows:
    """Write four experiments, a second apart, with logged models m, n and o in the first one and p in the second."""
    rows.experiment("alpha", team="risk")
    rows.experiment("beta", team="Risk", note="x")
    rows.experiment("Gamma")
    rows.experiment("delta", note="y")
    run_id = rows.run("1", name="source")
    m = rows.model("1", "m", model_type="tree", source_run_id=run_id, params={"lr": "0.1"}, tags={"team": "risk"})
    n = rows.model("1", "n", model_type="net", params={"lr": "0.2"})
    rows.model("1", "o")
    p = rows.model("2", "p")
    rows.append(v1.LoggedModelFinalized(model_id=n, status=v1.LOGGED_MODEL_STATUS_READY))
    for model_id, value, dataset, digest in (
        (m, 0.5, "iris", "1"),
        (m, 0.9, "digits", "1"),
        (n, 0.7, "iris", "2"),
        (p, float("nan"), "iris", "1"),
    ):
        series = point(
            "acc", value, time_ms=rows.appends, model_id=model_id, dataset_name=dataset, dataset_digest=digest
        )
        rows.append(v1.MetricsLogged(run_id=run_id, series=[series]))
    return rows


def list_experiments(
    rows: TrackingRows,
    filter_text: str = "",
    order_by: str = "",
    lifecycle: v1.Lifecycle.ValueType = v1.LIFECYCLE_UNSPECIFIED,
) -> list[str]:
    """List experiments in pages of two and return their names."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListExperimentsRequest(
            filter=filter_text, order_by=order_by, lifecycle=lifecycle, page_size=2, page_token=token
        )
        found = rows.query(lambda connection: runs.list_experiments(connection, request))
        return [experiment.name for experiment in found.experiments], found.next_page_token

    return all_pages(page)


def list_models(
    rows: TrackingRows,
    filter_text: str = "",
    order_by: str = "",
    experiment_ids: tuple[str, ...] = ("1",),
    datasets: tuple[v1.Dataset, ...] = (),
    lifecycle: v1.Lifecycle.ValueType = v1.LIFECYCLE_UNSPECIFIED,
) -> str:
    """List logged models in pages of two and return their names."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListLoggedModelsRequest(
            filter=filter_text,
            order_by=order_by,
            experiment_ids=experiment_ids,
            datasets=datasets,
            lifecycle=lifecycle,
            page_size=2,
            page_token=token,
        )
        found = rows.query(lambda connection: runs.list_logged_models(connection, request))
        return [model.name for model in found.models], found.next_page_token

    return "".join(all_pages(page))


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("", ["delta", "Gamma", "beta", "alpha"]),
        ("name = 'beta'", ["beta"]),
        ("name LIKE '%a' AND name != 'beta'", ["delta", "Gamma", "alpha"]),
        ("attribute.name ILIKE 'G%'", ["Gamma"]),
        ("experiment_id = '2'", ["beta"]),
        ("experiment_id IN ('1', '4', '04', 'x')", ["delta", "alpha"]),
        ("experiment_id NOT IN ('1', '4')", ["Gamma", "beta"]),
        ("experiment_id != 'x' AND experiment_id != '3'", ["delta", "beta", "alpha"]),
        (f"creation_time = {BEGAN_MS}", ["alpha"]),
        (f"created > {BEGAN_MS + 1000}", ["delta", "Gamma"]),
        (f"last_update_time <= {BEGAN_MS + 1000}", ["beta", "alpha"]),
        ("tags.team = 'risk'", ["alpha"]),
        ("tag.`team` IS NULL AND tags.note IS NOT NULL", ["delta"]),
        ("tags.note IN ('x', 'y')", ["delta", "beta"]),
    ],
)
def test_experiments_are_filtered(rows: TrackingRows, filter_text: str, expected: list[str]) -> None:
    assert list_experiments(rows, filter_text) == expected


def test_experiments_are_ordered(own_rows: TrackingRows) -> None:
    change = v1.TagChange(key="team", from_value="risk", to_value="fraud")
    own_rows.append(v1.ExperimentTagsChanged(experiment_id="1", changes=[change]))
    for order_by, expected in {
        "name": ["Gamma", "alpha", "beta", "delta"],
        "name DESC": ["delta", "beta", "alpha", "Gamma"],
        "experiment_id": ["alpha", "beta", "Gamma", "delta"],
        "creation_time DESC": ["delta", "Gamma", "beta", "alpha"],
        "updated DESC, name": ["alpha", "delta", "Gamma", "beta"],
    }.items():
        assert list_experiments(own_rows, order_by=order_by) == expected


def test_deleted_experiments_are_listed_by_lifecycle(own_rows: TrackingRows) -> None:
    own_rows.append(v1.ExperimentDeleted(experiment_id="2"))
    assert list_experiments(own_rows) == ["delta", "Gamma", "alpha"]
    assert list_experiments(own_rows, lifecycle=v1.LIFECYCLE_DELETED) == ["beta"]
    assert list_experiments(own_rows, lifecycle=v1.LIFECYCLE_ALL) == ["delta", "Gamma", "beta", "alpha"]
    assert list_models(own_rows, experiment_ids=()) == "onm"
    assert list_models(own_rows, experiment_ids=(), lifecycle=v1.LIFECYCLE_DELETED) == "p"


def test_experiment_is_found_by_current_name(own_rows: TrackingRows) -> None:
    def find(name: str) -> tuple[str, bool]:
        experiment = own_rows.query(lambda connection: runs.experiment(connection, v1.GetExperimentRequest(name=name)))
        return experiment.experiment_id, experiment.deleted

    own_rows.append(v1.ExperimentDeleted(experiment_id="2"))
    assert find("beta") == ("2", True)
    taken = own_rows.experiment("beta")
    assert find("beta") == (taken, False)
    own_rows.append(v1.ExperimentDeleted(experiment_id=taken))
    assert find("beta") == (taken, True)
    for request in (v1.GetExperimentRequest(name="none"), v1.GetExperimentRequest(experiment_id="9")):
        with pytest.raises(Rejected) as refused:
            own_rows.query(lambda connection, request=request: runs.experiment(connection, request))  # type: ignore[misc]
        assert refused.value.reason == "EXPERIMENT_NOT_FOUND"


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("", "onm"),
        ("name = 'm'", "m"),
        ("attributes.name IN ('m', 'o')", "om"),
        (f"model_id = 'm-{2:032x}'", "n"),
        ("model_type LIKE '%e%' AND model_type != 'net'", "m"),
        ("status = 'READY'", "n"),
        ("status IN ('PENDING')", "om"),
        ("source_run_id != ''", "m"),
        ("params.lr = '0.2'", "n"),
        ("params.lr IS NULL", "o"),
        ("tags.team ILIKE 'RISK'", "m"),
        ("metrics.acc > 0.6", "nm"),
        ("metrics.acc <= 0.5", "m"),
        ("metrics.acc = 0.7 AND params.lr = '0.2'", "n"),
        ("metrics.none > 0", ""),
        (f"creation_timestamp >= {BEGAN_MS + 6000} AND created < {BEGAN_MS + 7000}", "n"),
        (f"last_updated_timestamp > {BEGAN_MS + 8000}", "n"),
        (f"creation_timestamp_ms < {BEGAN_MS + 6000} AND last_updated_timestamp_ms > 0", "m"),
        ("experiment_id = '1' AND experiment_id NOT IN ('2')", "onm"),
        ("experiment_id = '2'", ""),
    ],
)
def test_models_are_filtered(rows: TrackingRows, filter_text: str, expected: str) -> None:
    assert list_models(rows, filter_text) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("name", "mno"),
        ("name DESC", "onm"),
        ("creation_time", "mno"),
        ("metrics.acc", "nmo"),
        ("metrics.acc DESC, name", "mno"),
        ("params.lr DESC", "nmo"),
        ("tags.team, name DESC", "mon"),
        ("status, model_type DESC", "mon"),
        ("experiment_id, creation_timestamp_ms DESC", "onm"),
    ],
)
def test_models_are_ordered(rows: TrackingRows, order_by: str, expected: str) -> None:
    assert list_models(rows, order_by=order_by) == expected


def test_metrics_are_restricted_to_datasets(rows: TrackingRows) -> None:
    iris, other = v1.Dataset(name="iris"), v1.Dataset(name="iris", digest="2")
    everywhere = ("1", "2")
    assert list_models(rows, datasets=(iris,), experiment_ids=everywhere) == "pnm"
    assert list_models(rows, datasets=(other,), experiment_ids=everywhere) == "n"
    assert list_models(rows, "metrics.acc > 0.6", datasets=(iris,)) == "n"
    assert list_models(rows, "metrics.acc > 0.6", datasets=(other, v1.Dataset(name="digits"))) == "nm"
    assert list_models(rows, order_by="metrics.acc", datasets=(iris,), experiment_ids=everywhere) == "mnp"


def test_model_is_shown_with_its_metrics(rows: TrackingRows) -> None:
    found = rows.query(lambda connection: runs.logged_model(connection, f"m-{1:032x}"))
    assert (found.name, found.experiment_id, found.status) == ("m", "1", v1.LOGGED_MODEL_STATUS_PENDING)
    assert (dict(found.params), dict(found.tags)) == ({"lr": "0.1"}, {"team": "risk"})
    assert [(metric.dataset_name, metric.value, metric.run_id) for metric in found.metrics] == [
        ("digits", 0.9, f"{1:032x}"),
        ("iris", 0.5, f"{1:032x}"),
    ]
    with pytest.raises(Rejected) as refused:
        rows.query(lambda connection: runs.logged_model(connection, "m-0"))
    assert refused.value.reason == "LOGGED_MODEL_NOT_FOUND"


@pytest.mark.parametrize(
    ("filter_text", "order_by", "reason"),
    [
        ("experiment_id LIKE '1%'", "", "INVALID_FILTER"),
        ("metrics.acc > 1", "", "INVALID_FILTER"),
        ("", "tags.team", "INVALID_ORDER"),
    ],
)
def test_invalid_listing_of_experiments_is_rejected(
    rows: TrackingRows, filter_text: str, order_by: str, reason: str
) -> None:
    with pytest.raises(Rejected) as refused:
        list_experiments(rows, filter_text, order_by)
    assert refused.value.reason == reason


def test_number_of_datasets_is_limited(rows: TrackingRows) -> None:
    many = tuple(v1.Dataset(name=f"d{number}", digest="1") for number in range(MAX_DATASETS))
    assert list_models(rows, datasets=many) == ""
    with pytest.raises(Rejected) as refused:
        list_models(rows, datasets=(*many, v1.Dataset(name="iris")))
    assert refused.value.reason == "INVALID_FILTER"


def test_models_of_several_experiments_are_listed(rows: TrackingRows) -> None:
    assert list_models(rows, order_by="experiment_id DESC, name", experiment_ids=("1", "2")) == "pmno"
