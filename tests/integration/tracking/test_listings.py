"""Finding experiments and logged models: the same answers from SQLite and PostgreSQL."""

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
    """Rows that are only read."""
    with place(request) as where, tracking_rows(where) as found:
        yield laid(found)


@pytest.fixture(params=BOTH)
def own(request: pytest.FixtureRequest) -> Iterator[TrackingRows]:
    """The same, for a test that writes."""
    with place(request) as where, tracking_rows(where) as found:
        yield laid(found)


def laid(rows: TrackingRows) -> TrackingRows:
    """Four experiments, created a second apart, and logged models m, n and o in the first one, p in the second."""
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


def experiments(
    rows: TrackingRows,
    asked: str = "",
    order_by: str = "",
    lifecycle: v1.Lifecycle.ValueType = v1.LIFECYCLE_UNSPECIFIED,
) -> list[str]:
    """The names of the experiments that are listed."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListExperimentsRequest(
            filter=asked, order_by=order_by, lifecycle=lifecycle, page_size=2, page_token=token
        )
        found = rows.ask(lambda connection: runs.list_experiments(connection, request))
        return [one.name for one in found.experiments], found.next_page_token

    return all_pages(page)


def models(
    rows: TrackingRows,
    asked: str = "",
    order_by: str = "",
    experiment_ids: tuple[str, ...] = ("1",),
    datasets: tuple[v1.Dataset, ...] = (),
    lifecycle: v1.Lifecycle.ValueType = v1.LIFECYCLE_UNSPECIFIED,
) -> str:
    """The names of the logged models that are listed."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListLoggedModelsRequest(
            filter=asked,
            order_by=order_by,
            experiment_ids=experiment_ids,
            datasets=datasets,
            lifecycle=lifecycle,
            page_size=2,
            page_token=token,
        )
        found = rows.ask(lambda connection: runs.list_logged_models(connection, request))
        return [one.name for one in found.models], found.next_page_token

    return "".join(all_pages(page))


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_filters_of_experiments(rows: TrackingRows, asked: str, expected: list[str]) -> None:
    assert experiments(rows, asked) == expected


def test_orders_of_experiments(own: TrackingRows) -> None:
    change = v1.TagChange(key="team", from_value="risk", to_value="fraud")
    own.append(v1.ExperimentTagsChanged(experiment_id="1", changes=[change]))
    for order_by, expected in {
        "name": ["Gamma", "alpha", "beta", "delta"],
        "name DESC": ["delta", "beta", "alpha", "Gamma"],
        "experiment_id": ["alpha", "beta", "Gamma", "delta"],
        "creation_time DESC": ["delta", "Gamma", "beta", "alpha"],
        "updated DESC, name": ["alpha", "delta", "Gamma", "beta"],
    }.items():
        assert experiments(own, order_by=order_by) == expected


def test_deleted_experiments(own: TrackingRows) -> None:
    own.append(v1.ExperimentDeleted(experiment_id="2"))
    assert experiments(own) == ["delta", "Gamma", "alpha"]
    assert experiments(own, lifecycle=v1.LIFECYCLE_DELETED) == ["beta"]
    assert experiments(own, lifecycle=v1.LIFECYCLE_ALL) == ["delta", "Gamma", "beta", "alpha"]
    assert models(own, experiment_ids=()) == "onm"
    assert models(own, experiment_ids=(), lifecycle=v1.LIFECYCLE_DELETED) == "p"


def test_a_name_leads_to_the_experiment_that_has_it(own: TrackingRows) -> None:
    def found(name: str) -> tuple[str, bool]:
        one = own.ask(lambda connection: runs.experiment(connection, v1.GetExperimentRequest(name=name)))
        return one.experiment_id, one.deleted

    own.append(v1.ExperimentDeleted(experiment_id="2"))
    assert found("beta") == ("2", True)
    taken = own.experiment("beta")
    assert found("beta") == (taken, False)
    own.append(v1.ExperimentDeleted(experiment_id=taken))
    assert found("beta") == (taken, True)
    for request in (v1.GetExperimentRequest(name="none"), v1.GetExperimentRequest(experiment_id="9")):
        with pytest.raises(Rejected) as refused:
            own.ask(lambda connection, request=request: runs.experiment(connection, request))  # type: ignore[misc]
        assert refused.value.reason == "EXPERIMENT_NOT_FOUND"


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_filters_of_models(rows: TrackingRows, asked: str, expected: str) -> None:
    assert models(rows, asked) == expected


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
def test_orders_of_models(rows: TrackingRows, order_by: str, expected: str) -> None:
    assert models(rows, order_by=order_by) == expected


def test_datasets_restrict_metrics(rows: TrackingRows) -> None:
    iris, other = v1.Dataset(name="iris"), v1.Dataset(name="iris", digest="2")
    everywhere = ("1", "2")
    assert models(rows, datasets=(iris,), experiment_ids=everywhere) == "pnm"
    assert models(rows, datasets=(other,), experiment_ids=everywhere) == "n"
    assert models(rows, "metrics.acc > 0.6", datasets=(iris,)) == "n"
    assert models(rows, "metrics.acc > 0.6", datasets=(other, v1.Dataset(name="digits"))) == "nm"
    assert models(rows, order_by="metrics.acc", datasets=(iris,), experiment_ids=everywhere) == "mnp"


def test_a_model_is_shown_with_its_metrics(rows: TrackingRows) -> None:
    found = rows.ask(lambda connection: runs.logged_model(connection, f"m-{1:032x}"))
    assert (found.name, found.experiment_id, found.status) == ("m", "1", v1.LOGGED_MODEL_STATUS_PENDING)
    assert (dict(found.params), dict(found.tags)) == ({"lr": "0.1"}, {"team": "risk"})
    assert [(one.dataset_name, one.value, one.run_id) for one in found.metrics] == [
        ("digits", 0.9, f"{1:032x}"),
        ("iris", 0.5, f"{1:032x}"),
    ]
    with pytest.raises(Rejected) as refused:
        rows.ask(lambda connection: runs.logged_model(connection, "m-0"))
    assert refused.value.reason == "LOGGED_MODEL_NOT_FOUND"


@pytest.mark.parametrize(
    ("asked", "order_by", "reason"),
    [
        ("experiment_id LIKE '1%'", "", "INVALID_FILTER"),
        ("metrics.acc > 1", "", "INVALID_FILTER"),
        ("", "tags.team", "INVALID_ORDER"),
    ],
)
def test_what_is_refused_of_experiments(rows: TrackingRows, asked: str, order_by: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        experiments(rows, asked, order_by)
    assert refused.value.reason == reason


def test_so_many_datasets_are_looked_at(rows: TrackingRows) -> None:
    many = tuple(v1.Dataset(name=f"d{number}", digest="1") for number in range(MAX_DATASETS))
    assert models(rows, datasets=many) == ""
    with pytest.raises(Rejected) as refused:
        models(rows, datasets=(*many, v1.Dataset(name="iris")))
    assert refused.value.reason == "INVALID_FILTER"


def test_models_of_several_experiments(rows: TrackingRows) -> None:
    assert models(rows, order_by="experiment_id DESC, name", experiment_ids=("1", "2")) == "pmno"
