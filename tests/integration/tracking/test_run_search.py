"""Searching runs: SQLite and PostgreSQL agree, and pages miss and repeat nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from eventstore.errors import Rejected
from rollforward import v1
from services.timestamps import timestamp
from services.tracking.queries import runs as queries
from services.tracking.queries import views
from services.tracking.queries.experiment_scope import FEW
from tests.integration.databases import BOTH, place
from tests.integration.registry.registry_rows import all_pages
from tests.integration.tracking.tracking_rows import TrackingRows, point, tracking_rows

NAN, INF = math.nan, math.inf
LONG = "x" * 64


@pytest.fixture(params=BOTH)
def rows(request: pytest.FixtureRequest) -> Iterator[TrackingRows]:
    """Yield empty rows."""
    with place(request) as location, tracking_rows(location) as empty:
        yield empty


@pytest.fixture(scope="module", params=BOTH)
def runs(request: pytest.FixtureRequest) -> Iterator[TrackingRows]:
    """Yield runs that tests only read."""
    with place(request) as location, tracking_rows(location) as empty:
        yield write_examples(empty)


@pytest.fixture
def own_rows(rows: TrackingRows) -> TrackingRows:
    """Return the same runs, for a test that writes."""
    return write_examples(rows)


def write_examples(rows: TrackingRows) -> TrackingRows:
    """Write five runs, a to e, of one experiment, and a run z of another."""
    first, second = rows.experiment("first"), rows.experiment("second")
    a = rows.run(first, name="a", start_ms=1000, tags={"team": "risk", "tier": "1"}, actor="Ada")
    b = rows.run(first, name="b", start_ms=3000, tags={"team": "risk", "note": "it's [new]*"})
    c = rows.run(first, name="c", start_ms=2000, tags={"team": "Risk"}, scheduled=True)
    d = rows.run(first, name="d", start_ms=3000, tags={"note": "100%"}, parent_run_id=a)
    rows.run(first, name="e", start_ms=5000, tags={"team": "plants"})
    z = rows.run(second, name="z", start_ms=4000)
    rows.log(a, {"acc": 0.5, "val/loss": 2.0}, lr="0.1", long=LONG + "a")
    rows.log(b, {"acc": 0.9, "val/loss": INF}, lr="0.2", long=LONG + "b")
    rows.log(c, {"acc": NAN}, lr="0.1")
    rows.log(d, {"acc": 0.9}, **{"a key": "1"})
    rows.log(z, {"acc": 0.7})
    rows.append(v1.RunFinished(run_id=a, status=v1.RUN_STATUS_FINISHED, end_time=timestamp(9_000_999_999)))
    rows.append(v1.RunFinished(run_id=b, status=v1.RUN_STATUS_FAILED, end_time=timestamp(8_000_000_000)))
    rows.append(
        v1.RunInputsLogged(run_id=a, inputs=[dataset_input("iris", "d1", "training"), dataset_input("digits", "d2")])
    )
    rows.append(v1.RunInputsLogged(run_id=b, inputs=[dataset_input("digits", "d3", "validation")]))
    rows.append(v1.RunOutputsLogged(run_id=a, outputs=[v1.ModelOutput(model_id="m-2", step=7)]))
    rows.append(v1.ArtifactLogged(run_id=a, path="m", digest="sha256:1", size_bytes=5, file_count=2))
    return rows


def dataset_input(name: str, digest: str, context: str = "") -> v1.DatasetInput:
    """Return a dataset and its context."""
    return v1.DatasetInput(dataset=v1.Dataset(name=name, digest=digest), tags={"context": context} if context else {})


def list_names(
    rows: TrackingRows,
    filter_text: str = "",
    order_by: str = "",
    experiments: tuple[str, ...] = ("1",),
    lifecycle: v1.Lifecycle.ValueType = v1.LIFECYCLE_ACTIVE,
    page_size: int = 2,
) -> str:
    """List runs in pages and return their names."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListRunsRequest(
            filter=filter_text,
            order_by=order_by,
            experiment_ids=experiments,
            lifecycle=lifecycle,
            page_size=page_size,
            page_token=token,
        )
        found = rows.query(lambda connection: queries.list_runs(connection, request))
        return [run.name for run in found.runs], found.next_page_token

    return "".join(all_pages(page))


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("", "abcde"),
        ("metrics.acc > 0.5", "bd"),
        ("metrics.acc >= 0.5", "abd"),
        ("metric.acc = 0.9", "bd"),
        ("metrics.acc != 0.9", "ac"),  # NaN differs from every number
        ("metrics.acc < 1", "abd"),
        ("metrics.acc > -1e3 AND metrics.`val/loss` <= 2", "a"),
        ('metrics."val/loss" > 1e300', "b"),
        ("metrics.val/loss = 2.0", "a"),
        ("metrics.none = 1", ""),
        ("params.lr = '0.1'", "ac"),
        ("parameters.lr != '0.1'", "b"),
        ("param.lr LIKE '0._' AND parameter.lr != '0.2'", "ac"),
        ("params.lr IS NULL", "de"),
        ("params.lr IS NOT NULL", "abc"),
        ("params.`a key` = '1'", "d"),
        ("params.lr IN ('0.1', '0.3')", "ac"),
        (f"params.long = '{LONG}b'", "b"),
        (f"params.long = '{LONG}'", ""),
        (f"params.long IN ('{LONG}a', '{LONG}c')", "a"),
        ("tags.team = 'risk'", "ab"),
        ("tag.team ILIKE 'RISK'", "abc"),
        ("tags.team != 'risk'", "ce"),
        ("tags.note LIKE '%[new]*'", "b"),
        (r"tags.note LIKE '%\%'", "d"),
        ("tags.note = 'it''s [new]*'", "b"),
        ("tags.team IS NULL AND tags.note IS NOT NULL", "d"),
        ("run_name = 'a'", "a"),
        ("attributes.`run name` != 'a'", "bcde"),
        ("tags.mlflow.runName LIKE '%'", "abcde"),
        ("tags.`mlflow.runName` IN ('a', 'e')", "ae"),
        ("tags.`mlflow.runName` IS NULL", ""),
        ("tags.`mlflow.parentRunId` IS NOT NULL", "d"),
        (f"tags.`mlflow.parentRunId` = '{1:032x}'", "d"),
        (f"parent_run_id = '{1:032x}'", "d"),
        ("parent_run_id = ''", "abce"),
        ("status = 'RUNNING'", "de"),
        ("status = 'running'", "de"),
        ("status IN ('scheduled', 'Failed')", "bc"),
        ("status ILIKE 'f%' AND status LIKE 'fin%'", "a"),
        ("started_at >= '1970-01-01T00:00:03Z'", "bde"),
        ("start_time < '1970-01-01T01:00:02+01:00'", "a"),
        ("ended_at = '1970-01-01T00:00:08Z'", "b"),
        ("attr.status != 'RUNNING'", "abc"),
        ("run.status LIKE 'F%'", "ab"),
        ("status IN ('SCHEDULED', 'FAILED')", "bc"),
        ("user_id = 'Ada'", "a"),
        ("actor != 'Ada'", "bcde"),
        (f"run_id = '{2:032x}'", "b"),
        (f"run_id IN ('{2:032x}', '{9:032x}', '{1:032x}')", "ab"),
        (f"run_id NOT IN ('{2:032x}')", "acde"),
        (f"run_id = '{6:032x}'", ""),  # of another experiment
        (f"artifact_uri IN ('runs:/{2:032x}', 'runs:/{6:032x}')", "b"),
        (f"attributes.artifact_uri ILIKE 'RUNS:/%' AND artifact_uri != 'runs:/{1:032x}'", "bcde"),
        ("start_time = 3000", "bd"),
        ("start_time > 3000", "e"),
        ("created <= 2000.5", "ac"),
        ("Created < 1e400 AND start_time >= -9e99", "abcde"),
        ("start_time != 3000", "ace"),
        ("end_time = 9000", "a"),
        ("end_time != 9000", "b"),
        ("datasets.name = 'digits'", "ab"),
        ("dataset.name != 'digits'", "a"),
        ("datasets.name IN ('iris', 'x') AND datasets.digest = 'd2'", "a"),
        ("datasets.context = 'training'", "a"),
        ("datasets.context != 'training'", "b"),
        ("datasets.name ILIKE 'DIG%' AND datasets.digest NOT IN ('d1', 'd2')", "b"),
    ],
)
def test_runs_are_filtered(runs: TrackingRows, filter_text: str, expected: str) -> None:
    assert "".join(sorted(list_names(runs, filter_text))) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", "edbca"),
        ("start_time", "acbde"),
        ("start_time DESC", "edbca"),
        ("metrics.acc DESC", "dbace"),
        ("metrics.acc", "abdce"),
        ("metric.acc desc, run_name", "bdace"),
        ("metrics.`val/loss`", "abcde"),
        ("metrics.`val/loss` DESC", "baedc"),
        ("metrics.none", "abcde"),
        ("metrics.none DESC", "edcba"),
        ("params.lr DESC, start_time DESC", "bcaed"),
        ("params.long, run_name DESC", "abedc"),
        ("tags.team", "ceabd"),
        ("tags.`mlflow.runName` DESC", "edcba"),
        ("tags.`mlflow.parentRunId`, start_time", "dacbe"),
        ("status, run_name", "badec"),
        ("end_time", "bacde"),
        ("end_time DESC", "abedc"),
        ("user_id DESC, run_id", "bcdea"),
        ("artifact_uri DESC", "edcba"),
        ("run_name DESC", "edcba"),
        ("run_name, start_time", "abcde"),
        (", ".join(["run_name", *(f"metrics.m{number}" for number in range(19))]), "abcde"),
    ],
)
def test_runs_are_ordered(runs: TrackingRows, order_by: str, expected: str) -> None:
    for page_size in (1, 2, 100):
        assert list_names(runs, order_by=order_by, page_size=page_size) == expected


@pytest.mark.parametrize(
    ("filter_text", "order_by", "expected"),
    [
        ("metrics.acc >= 0.5", "metrics.acc", "abd"),
        ("metrics.acc != 0.5", "metrics.acc DESC", "dbc"),
        ("metrics.acc < 0.9 AND params.lr = '0.1'", "metrics.acc", "a"),
        ("start_time < 5000 AND start_time > 1000", "start_time DESC", "dbc"),
        ("tags.team = 'risk'", "metrics.acc DESC", "ba"),
        ("params.lr = '0.1'", "metrics.val/loss", "ac"),
    ],
)
def test_runs_are_filtered_and_ordered(runs: TrackingRows, filter_text: str, order_by: str, expected: str) -> None:
    assert list_names(runs, filter_text, order_by) == expected


def test_several_experiments_are_merged(runs: TrackingRows) -> None:
    for experiments in (("1", "2"), ()):
        assert list_names(runs, order_by="metrics.acc DESC", experiments=experiments) == "dbzace"
        assert list_names(runs, experiments=experiments) == "ezdbca"
        assert list_names(runs, "metrics.acc > 0.6", "run_name", experiments) == "bdz"
    assert list_names(runs, experiments=("2",)) == "z"


def test_older_experiment_field_is_merged_with_newer(runs: TrackingRows) -> None:
    request = v1.ListRunsRequest(experiment_id="2", experiment_ids=["2"])
    assert [run.name for run in runs.query(lambda connection: queries.list_runs(connection, request)).runs] == ["z"]


@pytest.mark.parametrize(
    "experiment_ids",
    [["3"], ["01"], ["-1"], ["x"], ["9" * 30], [str(number) for number in range(70_000)]],
    ids=["next", "zero", "negative", "text", "long", "very many"],
)
def test_unknown_experiments_are_rejected(runs: TrackingRows, experiment_ids: list[str]) -> None:
    with pytest.raises(Rejected) as refused:
        list_names(runs, experiments=("1", *experiment_ids))
    assert refused.value.reason == "EXPERIMENT_NOT_FOUND"


def test_more_experiments_than_are_merged_are_listed(own_rows: TrackingRows) -> None:
    many = [own_rows.experiment(f"experiment {number}") for number in range(FEW + 1)]
    assert list_names(own_rows, experiments=("1", "2", *many)) == "ezdbca"
    assert list_names(own_rows, order_by="params.lr, run_name", experiments=("2", *many)) == "z"


@pytest.mark.timeout(20)
def test_largest_filters_are_fast(runs: TrackingRows) -> None:
    metrics = " AND ".join(f"metrics.m{number} > 0" for number in range(100))
    params = " AND ".join(f"params.p{number} IS NULL" for number in range(100))
    for order_by in ("metrics.acc", "tags.team"):
        assert list_names(runs, metrics, order_by) == ""
        assert sorted(list_names(runs, params, order_by)) == list("abcde")


def test_query_lists_consistent_snapshot(own_rows: TrackingRows) -> None:
    request = v1.ListRunsRequest(experiment_ids=["1"], order_by="metrics.acc DESC")

    def list_two_times(connection: sa.Connection) -> list[v1.ListRunsResponse]:
        first = queries.list_runs(connection, request)
        own_rows.log(f"{5:032x}", {"acc": 2.0}, lr="9")
        own_rows.tag(f"{1:032x}", {"team": "other"})
        own_rows.run("1", name="f")
        return [first, queries.list_runs(connection, request)]

    first, second = own_rows.query(list_two_times)
    assert first == second
    later = own_rows.query(lambda connection: queries.list_runs(connection, request))
    assert "".join(run.name for run in later.runs) == "edbacf"
    assert later.runs[0].params == {"lr": "9"}
    assert later.runs[3].tags["team"] == "other"


def test_deleted_runs_are_listed_by_lifecycle(own_rows: TrackingRows) -> None:
    own_rows.append(v1.RunDeleted(run_id=f"{2:032x}"))
    assert list_names(own_rows) == "edca"
    assert list_names(own_rows, lifecycle=v1.LIFECYCLE_DELETED) == "b"
    assert list_names(own_rows, lifecycle=v1.LIFECYCLE_ALL) == "edbca"
    assert list_names(own_rows, order_by="metrics.acc DESC") == "dace"
    own_rows.append(v1.ExperimentDeleted(experiment_id="1"))
    assert list_names(own_rows) == ""
    assert list_names(own_rows, experiments=()) == "z"
    assert list_names(own_rows, lifecycle=v1.LIFECYCLE_DELETED) == "edbca"
    assert list_names(own_rows, lifecycle=v1.LIFECYCLE_DELETED, experiments=()) == "edbca"
    assert all(
        run.deleted
        for run in own_rows.query(lambda connection: queries.runs_of(connection, [run_number(own_rows, "a")]))
    )
    own_rows.append(v1.ExperimentRestored(experiment_id="1"))
    assert list_names(own_rows) == "edca"


def run_number(rows: TrackingRows, name: str) -> int:
    """Return the number of a run."""
    run_id = f"{'abcdez'.index(name) + 1:032x}"
    return rows.query(lambda connection: queries.run_number(connection, run_id))


def test_runs_are_in_order_of_requested_numbers(runs: TrackingRows) -> None:
    numbers = [run_number(runs, name) for name in "cab"]
    assert [run.name for run in runs.query(lambda connection: queries.runs_of(connection, numbers))] == ["c", "a", "b"]


def test_metrics_beyond_limit_are_paged(rows: TrackingRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_METRICS", 5)
    monkeypatch.setattr(views, "MAX_MODEL_METRICS", 5)
    views._statements.cache_clear()
    experiment, counts = rows.experiment("e"), [3, 0, 9, 2, 1, 5, 4]
    expected = []
    for count in counts:
        run, model = rows.run(experiment), rows.model(experiment, "m")
        values = {f"k{number}": float(number) for number in range(count)}
        about_model = [point(key, value, model_id=model) for key, value in values.items()]
        rows.append(v1.MetricsLogged(run_id=run, series=about_model))
        expected.append((min(count, 5), count > 5))
    numbers = rows.query(lambda connection: [queries.run_number(connection, f"{at:032x}") for at in range(1, 8)])
    found = rows.query(lambda connection: queries.runs_of(connection, numbers))
    assert [(len(run.metrics), bool(run.next_metrics_token)) for run in found] == expected
    request = v1.ListLoggedModelsRequest(order_by="creation_time")
    models = rows.query(lambda connection: queries.list_logged_models(connection, request)).models
    assert [(len(model.metrics), bool(model.next_metrics_token)) for model in models] == expected
    rest = v1.ListRunMetricsRequest(run_id=found[2].run_id, page_token=found[2].next_metrics_token)
    page = rows.query(lambda connection: queries.run_metrics(connection, rest))
    assert (sorted(page.metrics), page.next_page_token) == (["k5", "k6", "k7", "k8"], "")
    of_model = v1.ListLoggedModelMetricsRequest(model_id=models[2].model_id, page_token=models[2].next_metrics_token)
    more = rows.query(lambda connection: queries.logged_model_metrics(connection, of_model))
    assert ([metric.key for metric in more.metrics], more.next_page_token) == (["k5", "k6", "k7", "k8"], "")
    views._statements.cache_clear()


def test_run_is_shown_with_all_its_data(runs: TrackingRows) -> None:
    found = runs.query(lambda connection: queries.run(connection, f"{1:032x}"))
    assert (found.name, found.experiment_id, found.actor) == ("a", "1", "Ada")
    assert (found.status, found.end_time.nanos) == (v1.RUN_STATUS_FINISHED, 999_999)
    assert dict(found.params) == {"lr": "0.1", "long": LONG + "a"}
    assert dict(found.tags) == {"team": "risk", "tier": "1"}
    assert {key: summary.last for key, summary in found.metrics.items()} == {"acc": 0.5, "val/loss": 2.0}
    assert [read.dataset.name for read in found.inputs] == ["digits", "iris"]
    assert [(output.model_id, output.step) for output in found.outputs] == [("m-2", 7)]
    assert [(artifact.path, artifact.size_bytes, artifact.file_count) for artifact in found.artifacts] == [("m", 5, 2)]
    assert math.isnan(runs.query(lambda connection: queries.run(connection, f"{3:032x}")).metrics["acc"].last)


def test_brief_runs_omit_logged_data(runs: TrackingRows) -> None:
    request = v1.ListRunsRequest(filter="run_name = 'a'", brief=True)
    (found,) = runs.query(lambda connection: queries.list_runs(connection, request)).runs
    assert found.name == "a"
    assert not any((found.params, found.tags, found.metrics, found.artifacts, found.inputs, found.outputs))


def test_new_runs_do_not_disturb_pages(own_rows: TrackingRows) -> None:
    for order_by in ("", "metrics.acc DESC", "metrics.acc", "params.lr", "run_name DESC", "end_time"):
        before = list_names(own_rows, order_by=order_by).replace("?", "")
        assert len(before) == 5
        request = v1.ListRunsRequest(experiment_id="1", order_by=order_by, page_size=2)
        seen = ""
        for turn in range(40):
            page = own_rows.query(lambda rows, request=request: queries.list_runs(rows, request))  # type: ignore[misc]
            seen += "".join(run.name for run in page.runs)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
            for value, started in ((0.95, 9000), (0.1, 1)) if turn < 3 else ():
                new = own_rows.run("1", name="?", start_ms=started)
                own_rows.log(new, {"acc": value}, lr="0.15")
                own_rows.append(
                    v1.RunFinished(run_id=new, status=v1.RUN_STATUS_FINISHED, end_time=timestamp(8_500_000_000))
                )
        assert seen.replace("?", "") == before
        assert "?" in seen


@pytest.mark.parametrize(
    "other",
    [
        v1.ListRunsRequest(experiment_id="1", order_by="metrics.acc"),
        v1.ListRunsRequest(experiment_id="1", order_by="metrics.acc DESC", filter="metrics.acc > 0"),
        v1.ListRunsRequest(experiment_id="2", order_by="metrics.acc DESC"),
    ],
    ids=["order", "filter", "experiment"],
)
def test_token_of_other_listing_is_rejected(runs: TrackingRows, other: v1.ListRunsRequest) -> None:
    request = v1.ListRunsRequest(experiment_id="1", order_by="metrics.acc DESC", page_size=1)
    token = runs.query(lambda connection: queries.list_runs(connection, request)).next_page_token
    for page_token in (token, "x", token[:-4]):
        other.page_token = page_token
        with pytest.raises(Rejected) as refused:
            runs.query(lambda connection: queries.list_runs(connection, other))
        assert refused.value.reason == "INVALID_PAGE"


@pytest.mark.parametrize(
    ("filter_text", "order_by", "reason"),
    [
        ("metrics.acc > '1'", "", "INVALID_FILTER"),
        ("metrics.acc IS NULL", "", "INVALID_FILTER"),
        ("metrics > 1", "", "INVALID_FILTER"),
        ("datasets.schema = 'x'", "", "INVALID_FILTER"),
        ("status > 'A'", "", "INVALID_FILTER"),
        ("start_time LIKE '1'", "", "INVALID_FILTER"),
        ("", "datasets.name", "INVALID_ORDER"),
        ("", "start_time, created", "INVALID_ORDER"),
        ("", "metrics.a, metric.a DESC", "INVALID_ORDER"),
        ("", "metrics", "INVALID_ORDER"),
        ("", ", ".join(f"metrics.m{number}" for number in range(21)), "INVALID_ORDER"),
    ],
)
def test_invalid_search_is_rejected(runs: TrackingRows, filter_text: str, order_by: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        list_names(runs, filter_text, order_by)
    assert refused.value.reason == reason


def test_empty_rows_have_no_runs(rows: TrackingRows) -> None:
    assert list_names(rows, experiments=()) == ""
    rows.experiment("first")
    assert list_names(rows, "metrics.a > 1", "metrics.a") == ""


def test_changed_metric_reorders_run(own_rows: TrackingRows) -> None:
    own_rows.append(v1.MetricsLogged(run_id=f"{1:032x}", series=[point("acc", 1.0, step=1)]))
    assert list_names(own_rows, order_by="metrics.acc DESC") == "adbce"
