"""The same runs, experiments and logged models in MLflow's store and in our rows, for the same queries."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventstore.errors import Rejected
from rollforward import v1
from services.tracking.queries import runs as queries
from tests.integration.registry.registry_rows import all_pages
from tests.integration.tracking.tracking_rows import TrackingRows, point

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")

REFUSED = ["refused"]
_STATUSES = {"RUNNING": 1, "SCHEDULED": 2, "FINISHED": 3, "FAILED": 4, "KILLED": 5}  # as MLflow numbers them


@dataclass(frozen=True)
class Run:
    """A run; times in milliseconds, datasets as (name, digest, context)."""

    name: str
    status: str = "RUNNING"
    start_time: int = 0
    end_time: int | None = None
    user_id: str = "Zoë"
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Model:
    """A logged model; metrics by name, dataset and its digest."""

    name: str
    model_type: str = ""
    metrics: dict[tuple[str, str, str], float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class BothStores:
    """MLflow's store on SQLite, and our rows in SQLite, each with the same in it."""

    def __init__(self, folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        (folder / "rows").mkdir()
        self._theirs: Any = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"))
        self._ours = TrackingRows(str(folder / "rows"))
        self._homes: dict[str, str] = {}
        self._lots = 0

    def close(self) -> None:
        """Close both stores."""
        self._ours.close()
        self._theirs._dispose_engine()

    def experiment(self, name: str = "", tags: dict[str, str] | None = None) -> str:
        """Create an experiment in both; return our id of it."""
        from mlflow.entities import ExperimentTag

        self._lots += 1
        unique = name or f"lot {self._lots}"
        theirs = self._theirs.create_experiment(unique, tags=[ExperimentTag(*one) for one in (tags or {}).items()])
        ours = self._ours.experiment(unique, **(tags or {}))
        self._homes[ours] = theirs
        return ours

    def lay_run(self, home: str, run: Run) -> str:
        """Create a run in an experiment of both; return its id."""
        from mlflow import entities as e

        tags = [e.RunTag(*one) for one in run.tags.items()]
        made = self._theirs.create_run(self._homes[home], run.user_id, run.start_time, tags, run.name)
        run_id: str = made.info.run_id
        self._theirs.update_run_info(run_id, _STATUSES[run.status], run.end_time, None)
        points = [e.Metric(key, value, 0, 0) for key, value in run.metrics.items()]
        self._theirs.log_batch(run_id, points, [e.Param(*one) for one in run.params.items()], [])
        context = "mlflow.data.context"
        used = [
            e.DatasetInput(e.Dataset(name, digest, "local", "here"), [e.InputTag(context, about)] if about else [])
            for name, digest, about in run.datasets
        ]
        self._theirs.log_inputs(run_id, used)
        self._lay_ours(home, run_id, run)
        return run_id

    def _lay_ours(self, home: str, run_id: str, run: Run) -> None:
        started = v1.RunStarted(
            run_id=run_id, experiment_id=home, name=run.name, tags=run.tags, scheduled=run.status == "SCHEDULED"
        )
        started.start_time.FromMilliseconds(run.start_time)
        self._ours.append(started, actor=run.user_id)
        self._ours.log(run_id, run.metrics, **run.params)
        used = [
            v1.DatasetInput(dataset=v1.Dataset(name=name, digest=digest), tags={"context": about} if about else {})
            for name, digest, about in run.datasets
        ]
        self._ours.append(v1.RunInputsLogged(run_id=run_id, inputs=used))
        if run.end_time is not None:
            ended = v1.RunFinished(run_id=run_id, status=v1.RunStatus.Value(f"RUN_STATUS_{run.status}"))
            ended.end_time.FromMilliseconds(run.end_time)
            self._ours.append(ended)

    def lay_model(self, home: str, source_run_id: str, model: Model) -> str:
        """Create a logged model in an experiment of both; return its id, the same in both."""
        from mlflow import entities as e

        made = self._theirs.create_logged_model(
            self._homes[home],
            model.name,
            source_run_id,
            [e.LoggedModelTag(*one) for one in model.tags.items()],
            [e.LoggedModelParameter(*one) for one in model.params.items()],
            model.model_type,
        )
        model_id: str = made.model_id
        self._ours.append(
            v1.LoggedModelCreated(
                model_id=model_id,
                experiment_id=home,
                name=model.name,
                model_type=model.model_type,
                source_run_id=source_run_id,
                params=model.params,
                tags=model.tags,
            )
        )
        for number, ((key, dataset, digest), value) in enumerate(model.metrics.items()):
            about = {"model_id": model_id, "dataset_name": dataset, "dataset_digest": digest}
            theirs = e.Metric(key, value, number, number, run_id=source_run_id, **about)
            self._theirs.log_batch(source_run_id, [theirs], [], [])
            series = point(key, value, step=number, time_ms=number, **about)
            self._ours.append(v1.MetricsLogged(run_id=source_run_id, series=[series]))
        return model_id

    def runs(self, home: str, asked: str, orders: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the ids of the runs that MLflow and we find."""

        def theirs() -> list[str]:
            found = self._theirs.search_runs([self._homes[home]], asked, 1, 1000, list(orders))
            return [run.info.run_id for run in found]

        def page(token: str) -> tuple[list[str], str]:
            request = v1.ListRunsRequest(
                experiment_id=home, filter=asked, order_by=", ".join(orders), page_size=2, page_token=token
            )
            answer = self._ours.query(lambda connection: queries.list_runs(connection, request))
            return [run.run_id for run in answer.runs], answer.next_page_token

        return _or_refused(theirs), _or_refused(lambda: all_pages(page))

    def experiments(self, asked: str, orders: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the names of the experiments that MLflow and we find."""

        def theirs() -> list[str]:
            found = self._theirs.search_experiments(1, 1000, asked, list(orders) or None)
            return [experiment.name for experiment in found]

        def page(token: str) -> tuple[list[str], str]:
            request = v1.ListExperimentsRequest(filter=asked, order_by=", ".join(orders), page_size=2, page_token=token)
            answer = self._ours.query(lambda connection: queries.list_experiments(connection, request))
            return [experiment.name for experiment in answer.experiments], answer.next_page_token

        return _or_refused(theirs), _or_refused(lambda: all_pages(page))

    def models(
        self, home: str, asked: str, orders: Sequence[tuple[str, bool]], datasets: Sequence[tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        """Return the ids of the logged models that MLflow and we find; orders are (field, whether descending)."""

        def theirs() -> list[str]:
            by = [{"field_name": name, "ascending": not descends} for name, descends in orders]
            on = [{"dataset_name": name} | ({"dataset_digest": digest} if digest else {}) for name, digest in datasets]
            return [
                model.model_id
                for model in self._theirs.search_logged_models([self._homes[home]], asked, on or None, 1000, by)
            ]

        def page(token: str) -> tuple[list[str], str]:
            request = v1.ListLoggedModelsRequest(
                experiment_ids=[home],
                filter=asked,
                order_by=", ".join(f"{name} {'DESC' if descends else 'ASC'}" for name, descends in orders),
                datasets=[v1.Dataset(name=name, digest=digest) for name, digest in datasets],
                page_size=2,
                page_token=token,
            )
            answer = self._ours.query(lambda connection: queries.list_logged_models(connection, request))
            return [model.model_id for model in answer.models], answer.next_page_token

        return _or_refused(theirs), _or_refused(lambda: all_pages(page))


def _or_refused(query: Callable[[], list[str]]) -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        return query()
    except (MlflowException, Rejected):
        return REFUSED


def place(value: Any, *, descending: bool) -> tuple[int, Any]:
    """Return the sort key of a value: numbers and texts first, then NaN, then absent values."""
    if value is None:
        return (2, 0)
    if isinstance(value, float) and math.isnan(value):
        return (1, 0)
    return (0, _Descending(value) if descending else value)


@dataclass(frozen=True)
class _Descending:
    value: Any

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)
