"""Runs, experiments and logged models as they are answered, with few questions for a whole page of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from rollforward import v1
from services.conditions import among, in_one
from services.latest import number
from services.times import timestamp
from services.tracking.tables import (
    artifacts,
    experiment_tags,
    experiments,
    inputs,
    metrics,
    model_metrics,
    model_params,
    model_tags,
    models,
    outputs,
    params,
    runs,
    tags,
)

Question = sa.Select[Any] | sa.CompoundSelect[Any]


def runs_of(rows: sa.Connection, numbers: Sequence[int], *, brief: bool = False) -> list[v1.Run]:
    """The runs of these numbers, in that order; `brief` leaves out what they logged."""
    ask = _Questions.of(rows)
    views = {row[0]: _run(row) for row in _answers(rows, ask.runs, numbers)}
    if not brief:
        _add_labels(rows, ask.run_labels, views)
        _add_metrics(rows, ask.metrics, views)
        _add_lineage(rows, ask.lineage, views)
    return [views[number] for number in numbers if number in views]


def experiments_of(rows: sa.Connection, numbers: Sequence[int]) -> list[v1.Experiment]:
    """The experiments of these numbers, in that order."""
    ask = _Questions.of(rows)
    views = {row.number: _experiment(row) for row in _answers(rows, ask.experiments, numbers)}
    _add_labels(rows, ask.experiment_labels, views)
    return [views[number] for number in numbers if number in views]


def models_of(rows: sa.Connection, numbers: Sequence[int]) -> list[v1.LoggedModel]:
    """The logged models of these numbers, in that order."""
    ask = _Questions.of(rows)
    views = {row.model: _model(row) for row in _answers(rows, ask.models, numbers)}
    _add_labels(rows, ask.model_labels, views)
    for row in _answers(rows, ask.model_metrics, list(views)):
        views[row.model].metrics.append(_model_metric(row))
    return [views[number] for number in numbers if number in views]


class _Questions:
    """The questions for what belongs to some numbers, said in a database's own way of a list in one parameter."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        home = sa.join(runs, experiments, experiments.c.number == runs.c.experiment)
        self.runs = sa.select(*_RUN, experiments.c.deleted).select_from(home).where(among(dialect, runs.c.run))
        self.run_labels = self._labels(params, tags)
        self.metrics = sa.select(*_SUMMARY).where(among(dialect, metrics.c.run))
        self.lineage = self._lineage()
        self.experiments = sa.select(experiments).where(among(dialect, experiments.c.number))
        self.experiment_labels = self._labels(None, experiment_tags)
        home = sa.join(models, experiments, experiments.c.number == models.c.experiment)
        model = sa.select(models, experiments.c.deleted.label("gone")).select_from(home)
        self.models = model.where(among(dialect, models.c.model))
        self.model_labels = self._labels(model_params, model_tags)
        measured = sa.select(model_metrics, runs.c.run_id).join(runs, runs.c.run == model_metrics.c.run)
        measured = measured.where(among(dialect, model_metrics.c.model))
        self.model_metrics = measured.order_by(*model_metrics.primary_key.columns)

    @staticmethod
    def of(rows: sa.Connection) -> _Questions:
        """The questions for a database."""
        return _questions(rows.dialect.name)

    def _labels(self, of_params: sa.Table | None, of_tags: sa.Table) -> Question:
        """Parameters and tags, of each number in one object of JSON."""
        parts = [(table, name) for table, name in ((of_params, "params"), (of_tags, "tags")) if table is not None]
        objects = [
            sa.select(table.c[0], sa.literal_column(f"'{name}'"), self._object(table.c.key, table.c.value))
            .where(among(self._dialect, table.c[0]))
            .group_by(table.c[0])
            for table, name in parts
        ]
        return sa.union_all(*objects)

    def _object(self, key: sa.ColumnElement[str], value: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        if self._dialect == "postgresql":
            return sa.cast(sa.func.json_object_agg(key, value), sa.Text)
        return sa.func.json_group_object(key, value, type_=sa.Text)

    def _lineage(self) -> Question:
        """Artifacts, inputs and outputs, with columns for what any of them has."""
        a, i, o = artifacts.c, inputs.c, outputs.c
        none, text = sa.literal_column("0", sa.BigInteger), sa.literal_column("''", sa.Text)
        empty = sa.cast(text, sa.LargeBinary)
        logged = (
            sa.select(none.label("kind"), a.run.label("run"), none.label("step"), a.path.label("name"),
                      a.digest.label("digest"), a.size_bytes, a.file_count, empty).where(among(self._dialect, a.run)),
            sa.select(sa.literal_column("1"), i.run, none, i.name, i.digest, none, none, i.input)
            .where(among(self._dialect, i.run)),
            sa.select(sa.literal_column("2"), o.run, o.step, o.model_id, text, none, none, empty)
            .where(among(self._dialect, o.run)),
        )  # fmt: skip
        return sa.union_all(*logged).order_by("kind", "run", "step", "name", "digest")


_questions = cache(_Questions)

_RUN = (
    runs.c.run,
    runs.c.run_id,
    runs.c.experiment,
    runs.c.name,
    runs.c.status,
    runs.c.start_time,
    runs.c.end_time,
    runs.c.actor,
    runs.c.description,
    runs.c.parent_run_id,
    runs.c.last_heard,
    runs.c.source,
    runs.c.deleted,
)
_SUMMARY = (
    metrics.c.run,
    metrics.c.key,
    metrics.c.value,
    metrics.c.step,
    metrics.c.timestamp,
    metrics.c.least,
    metrics.c.greatest,
    metrics.c.points,
)


def _answers(rows: sa.Connection, question: Question, numbers: Sequence[int]) -> Sequence[Any]:
    return rows.execute(question, {"numbers": in_one(rows.dialect.name, numbers)}).all()


def _run(row: Sequence[Any]) -> v1.Run:
    _, run_id, experiment, name, status, start, end, actor, description, parent, heard, source, deleted, gone = row
    view = v1.Run(
        run_id=run_id,
        experiment_id=str(experiment),
        name=name,
        status=status,
        start_time=timestamp(start),
        actor=actor,
        description=description,
        parent_run_id=parent,
        deleted=deleted or gone,
    )
    if end is not None:
        view.end_time.FromNanoseconds(end)
    if source:
        view.source.MergeFromString(source)
    if status == v1.RUN_STATUS_LOST and heard is not None:
        view.last_heard.FromNanoseconds(heard)
    return view


def _add_labels(rows: sa.Connection, question: Question, views: Mapping[int, Any]) -> None:
    for owner, field, labels in _answers(rows, question, list(views)):
        getattr(views[owner], field).update(json.loads(labels))


def _add_metrics(rows: sa.Connection, question: Question, views: Mapping[int, v1.Run]) -> None:
    for run, key, value, step, time, least, greatest, points in _answers(rows, question, list(views)):
        summary = views[run].metrics[key]
        summary.last, summary.last_step, summary.last_timestamp = number(value), step, time
        summary.min, summary.max, summary.count = number(least), number(greatest), points


def _add_lineage(rows: sa.Connection, question: Question, views: Mapping[int, v1.Run]) -> None:
    for kind, run, step, name, digest, size, count, body in _answers(rows, question, list(views)):
        if kind == 0:
            views[run].artifacts.add(path=name, digest=digest, size_bytes=size, file_count=count)
        elif kind == 1:
            views[run].inputs.add().MergeFromString(body)
        else:
            views[run].outputs.add(model_id=name, step=step)


def _experiment(row: Any) -> v1.Experiment:
    return v1.Experiment(
        experiment_id=str(row.number),
        name=row.name,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        actor=row.actor,
        deleted=row.deleted,
    )


def _model(row: Any) -> v1.LoggedModel:
    return v1.LoggedModel(
        model_id=row.model_id,
        experiment_id=str(row.experiment),
        name=row.name,
        model_type=row.model_type,
        source_run_id=row.source_run_id,
        status=row.status,
        digest=row.digest,
        size_bytes=row.size_bytes,
        file_count=row.file_count,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        actor=row.actor,
        deleted=row.deleted or row.gone,
    )


def _model_metric(row: Any) -> v1.LoggedModelMetric:
    return v1.LoggedModelMetric(
        key=row.key,
        value=number(row.value),
        step=row.step,
        timestamp=row.timestamp,
        run_id=row.run_id,
        dataset_name=row.dataset_name,
        dataset_digest=row.dataset_digest,
    )
