"""Which experiments a listing looks into."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.conditions import among
from services.tracking.tables import experiments

FEW = 32
"""So many experiments are merged at once; of more, those that come first."""

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Scope:
    """Experiments: those that `where` holds for; `few` are their numbers, if they are no more than FEW."""

    where: sa.ColumnElement[bool]
    few: Sequence[int] | None

    def holds(self, experiment: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Whether a column has the number of one of them."""
        if self.few is not None:
            return experiment.in_(self.few)
        return experiment.in_(sa.select(experiments.c.number).where(self.where))


def scope_of(rows: sa.Connection, experiment_ids: Collection[str], lifecycle: v1.Lifecycle.ValueType) -> Scope:
    """The experiments of these ids, or all without any, as far as they can have something that is asked for.

    Raises:
        Rejected: EXPERIMENT_NOT_FOUND.
    """
    live = lifecycle in {v1.LIFECYCLE_UNSPECIFIED, v1.LIFECYCLE_ACTIVE}
    where: sa.ColumnElement[bool]
    if experiment_ids:
        known = _known(rows, sorted(experiment_ids))
        numbers: Sequence[int] = sorted(number for number, deleted in known if not (live and deleted))
        where = among(rows.dialect.name, experiments.c.number, numbers)
    else:
        where = ~experiments.c.deleted if live else sa.true()
        numbers = rows.scalars(sa.select(experiments.c.number).where(where).limit(FEW + 1)).all()
    return Scope(where, sorted(numbers) if len(numbers) <= FEW else None)


def experiment_number(rows: sa.Connection, experiment_id: str) -> int:
    """The number that rows know an experiment by. Raises `Rejected` EXPERIMENT_NOT_FOUND."""
    return _known(rows, [experiment_id])[0][0]


def _known(rows: sa.Connection, experiment_ids: Sequence[str]) -> list[tuple[int, bool]]:
    """The numbers of experiments, and whether they are deleted."""
    # Written otherwise, as "007", it is another id.
    wanted = {one: int(one) if _NUMBER.fullmatch(one) else 0 for one in experiment_ids}
    question = sa.select(experiments.c.number, experiments.c.deleted)
    found = rows.execute(question.where(among(rows.dialect.name, experiments.c.number, list(wanted.values()))))
    known: dict[int, bool] = {row.number: row.deleted for row in found}
    for experiment_id, number in wanted.items():
        if number not in known:
            raise no_experiment(experiment_id)
    return list(known.items())


def no_experiment(wanted: str) -> Rejected:
    """The refusal of an experiment that is not there, by its id or name."""
    words = f"no experiment {wanted[:500]!r}"
    return Rejected(Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", words, experiment=wanted[:500])
