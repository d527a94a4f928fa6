"""Runs, experiments and logged models as they are answered, with few questions for a whole page of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from eventstore import Query, Row, fetch_each
from rollforward import v1
from services.sql.columns import among, in_one
from services.timestamps import timestamp
from services.tracking.projection.tables import (
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
from services.tracking.queries.metric_pages import MODEL_METRIC_KEY, SUMMARY, add_model_metrics, shorten, summarize

MAX_METRICS = 50_000
"""How many metrics of runs are read at once: more of them than fit an answer."""

MAX_MODEL_METRICS = 20_000
"""How many metrics of logged models are read at once."""


def runs_of(
    connection: sa.Connection,
    numbers: Sequence[int],
    *,
    brief: bool = False,
    with_metrics: bool = True,
    make: Callable[..., v1.Run] = v1.Run,
) -> Iterator[v1.Run]:
    """Yield the runs of these numbers, in this order, each with as many metrics as fit a response.

    Args:
        connection: To the rows of tracking.
        numbers: The numbers of the runs.
        brief: Whether to leave out what the runs logged.
        with_metrics: Whether to read their metrics.
        make: Creates a run from its fields, such as directly in a response.
    """
    views = _read_runs(connection, numbers, brief=brief, with_metrics=with_metrics, make=make)
    if views is not None:
        yield from views
        return
    # Halves, read one after the other: whoever has enough does not ask for more.
    middle = len(numbers) // 2
    for half in (numbers[:middle], numbers[middle:]):
        yield from runs_of(connection, half, make=make)


def _read_runs(
    connection: sa.Connection, numbers: Sequence[int], *, brief: bool, with_metrics: bool, make: Callable[..., v1.Run]
) -> list[v1.Run] | None:
    """Return runs as `runs_of` yields them; None for several that have more than MAX_METRICS together."""
    ask = _Questions.of(connection)
    measured = ask.metrics if len(numbers) > 1 else ask.ordered_metrics
    with_metrics = with_metrics and not brief
    logged = [] if brief else [ask.run_labels, ask.lineage]
    with _answers(connection, [ask.runs, *([measured] if with_metrics else []), *logged], numbers) as results:
        known = {row[0]: row for row in next(results)}
        summaries = next(results) if with_metrics else []
        incomplete = len(summaries) > MAX_METRICS
        if incomplete and len(numbers) > 1:
            return None
        views = {number: _run(make, known[number]) for number in numbers if number in known}
        _add_metrics(summaries[:MAX_METRICS], views)
        for add, rest in zip((_add_labels, _add_lineage), results, strict=False):
            add(rest, views)
    for view in views.values():
        shorten(view, incomplete=incomplete)
    return list(views.values())


def experiments_of(connection: sa.Connection, numbers: Sequence[int]) -> list[v1.Experiment]:
    """Return the experiments of these numbers, in that order."""
    ask = _Questions.of(connection)
    with _answers(connection, [ask.experiments, ask.experiment_labels], numbers) as results:
        views = {row[0]: _experiment(row) for row in next(results)}
        _add_labels(next(results), views)
    return [views[number] for number in numbers if number in views]


def models_of(connection: sa.Connection, numbers: Sequence[int]) -> Iterator[v1.LoggedModel]:
    """Yield the logged models of these numbers, in this order, each with as many metrics as fit a response."""
    ask = _Questions.of(connection)
    with _answers(connection, [ask.models, ask.model_labels, ask.model_metrics], numbers) as results:
        views = {row[0]: _model(row) for row in next(results)}
        _add_labels(next(results), views)
        measured = next(results)
    incomplete = len(measured) > MAX_MODEL_METRICS
    if incomplete and len(numbers) > 1:
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            yield from models_of(connection, half)
        return
    for model, metrics_of in groupby(measured[:MAX_MODEL_METRICS], lambda row: row[0]):
        add_model_metrics(views[model], metrics_of, incomplete=incomplete)
    yield from (views[number] for number in numbers if number in views)


class _Questions:
    """The questions for what belongs to some numbers, said in a database's own way of a list in one parameter."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        home = sa.join(runs, experiments, experiments.c.number == runs.c.experiment)
        self.runs = sa.select(*_RUN, experiments.c.deleted).select_from(home).where(among(dialect, runs.c.run))
        self.run_labels = self._labels(params, tags)
        self.metrics = sa.select(*SUMMARY).where(among(dialect, metrics.c.run)).limit(MAX_METRICS + 1)
        self.ordered_metrics = self.metrics.order_by(metrics.c.key)
        self.lineage = self._lineage()
        self.experiments = sa.select(experiments).where(among(dialect, experiments.c.number))
        self.experiment_labels = self._labels(None, experiment_tags)
        home = sa.join(models, experiments, experiments.c.number == models.c.experiment)
        model = sa.select(models, experiments.c.deleted.label("gone")).select_from(home)
        self.models = model.where(among(dialect, models.c.model))
        self.model_labels = self._labels(model_params, model_tags)
        measured = sa.select(model_metrics, runs.c.run_id).join(runs, runs.c.run == model_metrics.c.run)
        measured = measured.where(among(dialect, model_metrics.c.model))
        measured = measured.order_by(model_metrics.c.model, *MODEL_METRIC_KEY)
        self.model_metrics = measured.limit(MAX_MODEL_METRICS + 1)

    @staticmethod
    def of(connection: sa.Connection) -> _Questions:
        """Return the statements for a database."""
        return _statements(connection.dialect.name)

    def _labels(self, of_params: sa.Table | None, of_tags: sa.Table) -> Query:
        """Return parameters and tags, in one JSON object for each number."""
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

    def _lineage(self) -> Query:
        """Return artifacts, inputs and outputs, with columns for the fields of all three."""
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


_statements = cache(_Questions)

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


def _answers(
    connection: sa.Connection, questions: Sequence[Query], numbers: Sequence[int]
) -> AbstractContextManager[Iterator[list[Row]]]:
    return fetch_each(connection, questions, numbers=in_one(connection.dialect.name, numbers))


def _run(make: Callable[..., v1.Run], row: Row) -> v1.Run:
    (
        _,
        run_id,
        experiment,
        name,
        status,
        start,
        end,
        actor,
        description,
        parent,
        silent_since,
        source,
        deleted,
        gone,
    ) = row
    view = make(
        run_id=run_id,
        experiment_id=str(experiment),
        name=name,
        status=status,
        start_time=_time(start),
        end_time=None if end is None else _time(end),
        actor=actor,
        description=description,
        parent_run_id=parent,
        deleted=bool(deleted or gone),
    )
    if source:
        view.source.MergeFromString(source)
    if status == v1.RUN_STATUS_LOST and silent_since is not None:
        view.last_heard.FromNanoseconds(silent_since)
    return view


def _time(time_ns: int) -> dict[str, int]:
    """Return the fields of a timestamp: protobuf takes them faster than a message."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return {"seconds": seconds, "nanos": nanos}


def _add_labels(labelled: Sequence[Row], views: Mapping[int, Any]) -> None:
    # One text takes less time to read than many.
    objects = json.loads(f"[{','.join(labels for _, _, labels in labelled)}]")
    for (owner, field, _), labels in zip(labelled, objects, strict=True):
        getattr(views[owner], field).update(labels)


def _add_metrics(measured: Sequence[Row], views: Mapping[int, v1.Run]) -> None:
    summaries = {run: view.metrics for run, view in views.items()}
    for row in measured:
        summarize(summaries[row[0]][row[1]], row)


def _add_lineage(lineage: Sequence[Row], views: Mapping[int, v1.Run]) -> None:
    for kind, run, step, name, digest, size, count, body in lineage:
        if kind == 0:
            views[run].artifacts.add(path=name, digest=digest, size_bytes=size, file_count=count)
        elif kind == 1:
            views[run].inputs.add().MergeFromString(body)
        else:
            views[run].outputs.add(model_id=name, step=step)


def _experiment(row: Row) -> v1.Experiment:
    experiment, name, created, updated, actor, deleted = row
    return v1.Experiment(
        experiment_id=str(experiment),
        name=name,
        created_at=timestamp(created),
        updated_at=timestamp(updated),
        actor=actor,
        deleted=bool(deleted),
    )


def _model(row: Row) -> v1.LoggedModel:
    _, model_id, experiment, name, model_type, run_id, status, digest, size, files, created, updated, *rest = row
    actor, deleted, gone = rest
    return v1.LoggedModel(
        model_id=model_id,
        experiment_id=str(experiment),
        name=name,
        model_type=model_type,
        source_run_id=run_id,
        status=status,
        digest=digest,
        size_bytes=size,
        file_count=files,
        created_at=timestamp(created),
        updated_at=timestamp(updated),
        actor=actor,
        deleted=bool(deleted or gone),
    )
