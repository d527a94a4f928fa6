"""Index scans: runs in the order of an index, read no further than a page needs, without a sort."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.listings.filter_grammar import Comparison, Order
from services.listings.filter_sql import compared_metric, compared_time
from services.tracking.projection.tables import experiments, metrics, runs
from services.tracking.queries.experiment_scope import FEW, Scope
from services.tracking.queries.run_filters import MISSING, NAN

Value = int | float | str

Place = tuple[Value, int]
"""Where a run stands in a phase: its value, and its own number."""

Key = tuple[int, Value, int]
"""Where a run stands: the rank of its phase, and its place there."""

_FIRST_READ = 256
_NO_RUN = (-1, 2**63 - 1)

_METRIC, _RUN = metrics.alias("walked"), runs.alias("walked")
"""What is walked along; the same tables stand in conditions under their own names."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the order: rows of `source` for which `where` holds, by `value` if it is not always the same, then run.

    `rank` is where it stands among all parts that there may be. `within` are what else must hold of the value, by
    operator, and `besides` what must hold of their runs. `blank` is a column that has no value in any of the rows, and
    stands before the run in the index.
    """

    source: sa.FromClause
    value: sa.ColumnElement[Any]
    where: tuple[sa.ColumnElement[bool], ...] = ()
    within: tuple[tuple[str, sa.ColumnElement[bool]], ...] = ()
    besides: tuple[sa.ColumnElement[bool], ...] = ()
    by_value: bool = True
    rank: int = 0
    blank: sa.ColumnElement[Any] | None = None


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """An order that indexes have, phase by phase; `ranked` if keys name the rank of the phase."""

    phases: tuple[Segment, ...]
    descending: bool
    ranked: bool


def leads(order: Order, how: Comparison) -> bool:
    """Return whether the scan in this order already satisfies a comparison, so that it need not be checked."""
    return (how.field, how.key) == (order.field, order.key) and order.field in {"metrics", *_TIMES}


_TIMES = {"start_time": _RUN.c.start_time, "end_time": _RUN.c.end_time}


def way_of(order: Order, comparisons: Sequence[Comparison]) -> ScanPlan | None:
    """Return the scan plan for an order, within the bounds of the comparisons; None when no index has the order."""
    about = [how for how in comparisons if leads(order, how)]
    phases = _phases(order, about)
    return ScanPlan(phases, order.descending, ranked=len(phases) > 1) if phases else None


def _phases(order: Order, about: Sequence[Comparison]) -> tuple[Segment, ...]:
    if order.field == "metrics":
        return _by_metric(order, about)
    if order.field == "run_name":
        return (Segment(_RUN, _RUN.c.name),)
    return _by_time(_TIMES[order.field], about) if order.field in _TIMES else ()


def _by_time(value: sa.ColumnElement[int], about: Sequence[Comparison]) -> tuple[Segment, ...]:
    known = Segment(_RUN, value, within=tuple((how.operator, compared_time(value, how)) for how in about))
    if value is _RUN.c.start_time:
        return (known,)
    none = (sa.false(),) if about else (value.is_(None),)
    nothing = sa.literal(0, sa.BigInteger())
    return known, Segment(_RUN, nothing, none, by_value=False, rank=MISSING, blank=value)


def _by_metric(order: Order, about: Sequence[Comparison]) -> tuple[Segment, ...]:
    value, named = _METRIC.c.value, _METRIC.c.key == order.key
    nothing: sa.ColumnElement[float] = sa.literal(0.0, sa.Double())
    within = tuple((how.operator, compared_metric(value, how)) for how in about)
    different = tuple(value.is_not(None) for how in about if how.operator == "!=")
    numbers = Segment(_METRIC, value, (named, *different), within)
    nan = Segment(_METRIC, nothing, (named, value.is_(None)), within, by_value=False, rank=NAN, blank=value)
    logged = sa.select(sa.literal(1)).where(metrics.c.run == runs.c.run, metrics.c.key == order.key).exists()
    none = (sa.false(),) if about else ()
    missing = Segment(_RUN, nothing, none, besides=(~logged,), by_value=False, rank=MISSING)
    return numbers, nan, missing


class IndexScan:
    """A walk through the runs of some experiments that fulfil conditions."""

    def __init__(
        self, connection: sa.Connection, way: ScanPlan, scope: Scope, where: Sequence[sa.ColumnElement[bool]]
    ) -> None:
        self._rows = connection
        self._way = way
        self._scope = scope
        self._where = where
        self._behind, self._until = (operator.lt, operator.ge) if way.descending else (operator.gt, operator.le)
        # In front of all runs with the same value, and behind them.
        self._front, self._end = _NO_RUN[::-1] if way.descending else _NO_RUN

    def keys(self, after: Key | None, wanted: int, go_on: Callable[[int], bool]) -> list[Key] | None:
        """Return the next keys, at most as many as wanted.

        Args:
            after: The key that they come behind.
            wanted: How many.
            go_on: Told how many more rows it may take, says whether to read them; if not, None is returned.
        """
        matches: list[Key] = []
        read, size = 0, _FIRST_READ
        for phase in self._way.phases:
            if after and phase.rank < after[0]:
                continue
            at = after[1:] if after and after[0] == phase.rank else None
            while True:
                keys, at = self._step(phase, at, size, wanted - len(matches))
                matches += [(phase.rank, *key) for key in keys]
                if len(matches) == wanted:
                    return matches
                if at is None:
                    break
                read += size
                expected = (wanted - len(matches)) * read // (len(matches) + 1)
                if not go_on(expected):
                    return None
                size = max(_FIRST_READ, min(expected * 5 // 4, read * 8))
        return matches

    def behind_all(self, rank: int, value: Value) -> Key:
        """Return the key after all rows with this value."""
        return rank, value, self._end

    def between(self, numbers: Sequence[int], first: Key | None, last: Key | None) -> sa.CompoundSelect[Any]:
        """Return the runs of some experiments with values from that of one key to that of another, and some more."""
        parts: list[sa.Select[Any]] = []
        for phase in self._way.phases:
            if (first and phase.rank < first[0]) or (last and phase.rank > last[0]):
                continue
            begin = (first[1], self._front) if first and first[0] == phase.rank else None
            end = (last[1], self._end) if last and last[0] == phase.rank else None
            some = [self._part(phase, number, begin, end) for number in numbers]
            parts += [part.with_only_columns(phase.source.c.run) for part in some]
        return sa.union(*parts)

    def _step(self, phase: Segment, after: Place | None, size: int, wanted: int) -> tuple[list[Place], Place | None]:
        """Return the matches among the next rows, and the last row read; None at the end of the segment."""
        numbers, last = self._ahead(phase, after)
        if not numbers:
            return [], None
        candidates = self._merged(phase, numbers, after, last, size)
        end = candidates.limit(1).offset(size - 1)
        if self._rows.dialect.name == "sqlite":
            # SQLite would sort rows that are already in order: a bound on the range avoids the sort.
            last = next(iter(self._places(end)), last)
            fulfil = self._fulfil(phase, phase.source.c.run)
            return self._places(self._merged(phase, numbers, after, last, wanted, fulfil)), last
        ahead = candidates.subquery("ahead")
        fulfilling = sa.select(ahead).where(self._fulfil(phase, ahead.c.run))
        matches = self._places(fulfilling.order_by(*self._order(phase, *ahead.c)).limit(wanted))
        return matches, last if len(matches) == wanted else next(iter(self._places(end)), last)

    def _places(self, statement: sa.Select[Any]) -> list[Place]:
        return [(value, run) for value, run in self._rows.execute(statement).all()]

    def _ahead(self, phase: Segment, after: Place | None) -> tuple[Sequence[int], Place | None]:
        """Return the experiments of the next rows, and where rows of other experiments begin."""
        if self._scope.few is not None:
            return self._scope.few, None
        run = phase.source.c.run
        first = self._part(phase, experiments.c.number, after, None).with_only_columns(run)
        first = self._in_order(phase, first, phase.value, run).limit(1).correlate(experiments)
        of_each = sa.select(experiments.c.number, first.scalar_subquery().label("run"))
        heads = of_each.where(self._scope.where).subquery("heads")
        statement = sa.select(heads.c.number, phase.value.label("value"), heads.c.run)
        statement = statement.join(phase.source, run == heads.c.run).where(*phase.where)
        rows = self._rows.execute(statement.order_by(*self._order(phase, phase.value, run)).limit(FEW + 1)).all()
        last = (rows[-1].value, rows[-1].run) if len(rows) > FEW else None
        return [row.number for row in rows], last

    def _fulfil(self, phase: Segment, run: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        same = runs.c.run == run
        return sa.select(sa.literal(1)).select_from(runs).where(same, *self._where, *phase.besides).exists()

    def _merged(
        self, phase: Segment, numbers: Sequence[int], after: Place | None, last: Place | None, many: int, *where: Any
    ) -> sa.Select[Any]:
        """Return the first places of some experiments, in order."""
        parts = [self._part(phase, number, after, last).where(*where) for number in numbers]
        if len(parts) == 1:
            return self._in_order(phase, parts[0], *parts[0].selected_columns).limit(many)
        if self._rows.dialect.name == "postgresql":  # SQLite merges parts as it reads them
            ends = [self._in_order(phase, part, *part.selected_columns).limit(many) for part in parts]
            parts = [sa.select(end.subquery()) for end in ends]
        merged = sa.union_all(*parts).subquery("merged")
        return sa.select(merged).order_by(*self._order(phase, *merged.c)).limit(many)

    def _part(self, phase: Segment, number: Any, after: Place | None, last: Place | None) -> sa.Select[Any]:
        part = sa.select(phase.value.label("value"), phase.source.c.run.label("run"))
        part = part.where(phase.source.c.experiment == number, *phase.where)
        # Only one bound to begin at: SQLite might use another one and read all that comes before a page.
        passed = {"<", "<="} if self._way.descending else {">", ">="}
        within = [condition for sign, condition in phase.within if not (after and sign in passed)]
        if after:
            within.append(self._compared(phase, after, self._behind))
        if last:
            within.append(self._compared(phase, last, self._until))
        if phase.by_value and not within:
            within.append(phase.value.is_not(None))
        return part.where(*within)

    @staticmethod
    def _compared(phase: Segment, place: Place, sign: Callable[[Any, Any], Any]) -> Any:
        run = sa.literal(place[1], sa.BigInteger())
        if not phase.by_value:
            return sign(phase.source.c.run, run)
        value = sa.literal(place[0], phase.value.type)
        return sign(sa.tuple_(phase.value, phase.source.c.run), sa.tuple_(value, run))

    def _in_order(self, phase: Segment, part: sa.Select[Any], value: Any, run: Any) -> sa.Select[Any]:
        # PostgreSQL does not see by itself that all blanks are alike.
        blank = [] if phase.blank is None else [phase.blank]
        return part.order_by(*self._directed(*blank), *self._order(phase, value, run))

    def _order(self, phase: Segment, value: Any, run: Any) -> list[Any]:
        return self._directed(value, run) if phase.by_value else self._directed(run)

    def _directed(self, *columns: Any) -> list[Any]:
        return [column.desc() if self._way.descending else column for column in columns]
