"""Which experiments a listing looks into."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa

from eventstore import Kind, Rejected, fetch_all
from rollforward import v1
from services.sql.columns import among, in_one
from services.tracking.projection.tables import experiments

FEW = 32
"""So many experiments are merged at once; of more, those that come first."""

_ID = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = experiments.c.number
_ALL = sa.select(_NUMBER).limit(sa.literal_column(str(FEW + 1)))
_LIVE = _ALL.where(~experiments.c.deleted)


@dataclass(frozen=True, slots=True)
class Scope:
    """Experiments: `few` are their numbers, or there are more than FEW, and `where` holds for them."""

    few: Sequence[int] | None
    where: sa.ColumnElement[bool] = field(default_factory=sa.true)

    def holds(self, experiment: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column has the number of one of them."""
        if self.few is not None:
            return experiment.in_(self.few)
        return experiment.in_(sa.select(experiments.c.number).where(self.where))


def scope_of(connection: sa.Connection, experiment_ids: Collection[str], lifecycle: v1.Lifecycle.ValueType) -> Scope:
    """Return the experiments of these ids, or all if none are given, that can have a result.

    Raises:
        Rejected: EXPERIMENT_NOT_FOUND.
    """
    live = lifecycle in {v1.LIFECYCLE_UNSPECIFIED, v1.LIFECYCLE_ACTIVE}
    if experiment_ids:
        known = _known(connection, sorted(experiment_ids))
        numbers = sorted(number for number, deleted in known if not (live and deleted))
        return Scope(numbers) if len(numbers) <= FEW else Scope(None, among(connection.dialect.name, _NUMBER, numbers))
    numbers = [number for (number,) in fetch_all(connection, _LIVE if live else _ALL)]
    if len(numbers) <= FEW:
        return Scope(sorted(numbers))
    return Scope(None, ~experiments.c.deleted if live else sa.true())


def experiment_number(connection: sa.Connection, experiment_id: str) -> int:
    """Return the number that rows know an experiment by. Raises `Rejected` EXPERIMENT_NOT_FOUND."""
    return _known(connection, [experiment_id])[0][0]


def _known(connection: sa.Connection, experiment_ids: Sequence[str]) -> list[tuple[int, bool]]:
    """Return the numbers of experiments, and whether they are deleted."""
    # An id in another form, such as "007", does not exist.
    numbers_by_id = {text: int(text) if _ID.fullmatch(text) else -1 for text in experiment_ids}
    dialect = connection.dialect.name
    rows = fetch_all(connection, _these(dialect), numbers=in_one(dialect, list(numbers_by_id.values())))
    known = {number: bool(deleted) for number, deleted in rows}
    for experiment_id, number in numbers_by_id.items():
        if number not in known:
            raise no_experiment(experiment_id)
    return list(known.items())


@cache
def _these(dialect: str) -> sa.Select[Any]:
    return sa.select(_NUMBER, experiments.c.deleted).where(among(dialect, _NUMBER))


def no_experiment(wanted: str) -> Rejected:
    """Return the rejection of an unknown experiment, by its id or name."""
    message = f"no experiment has the id {wanted[:500]!r}"
    return Rejected(Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", message, experiment=wanted[:500])
