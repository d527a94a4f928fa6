"""Which runs a listing has, in its order: by a walk along an index, or gathered from the rarest thing asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from eventstore import fetch_all
from rollforward import v1
from services.listings.filter_grammar import Comparison, Order, parse_filter, parse_order
from services.listings.keyset import behind, listing_key, ordered
from services.tracking.projection.tables import experiments, runs
from services.tracking.queries.experiment_scope import Scope, scope_of
from services.tracking.queries.index_scan import IndexScan, Key, ScanPlan, leads, way_of
from services.tracking.queries.run_filters import RUN_FIELDS, RUN_ORDERS, Condition, condition, kinds_of, sorts_of

_NEWEST = Order("start_time", descending=True)
_RARE = 20_000
"""Where no index has the order, what no more runs than this have is looked for first."""

# All that is asked here is for few rows that an index has; guesses at how many there are lead PostgreSQL elsewhere. And
# it would take half a minute to think about all orders in which a hundred comparisons can be made.
_BY_INDEX = {
    **dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "jit"), "off"),
    **dict.fromkeys(("join_collapse_limit", "from_collapse_limit"), "1"),
    "max_parallel_workers_per_gather": "0",
}
_WHOLE = ("enable_sort", "enable_hashjoin", "enable_mergejoin")
_TO_WALK, _TO_GATHER = (
    sa.select(*(sa.func.set_config(name, value, True) for name, value in settings.items()))
    for settings in (_BY_INDEX | dict.fromkeys(_WHOLE, switch) for switch in ("off", "on"))
)


def _plan(connection: sa.Connection, statement: sa.Select[Any]) -> None:
    if connection.dialect.name == "postgresql":
        fetch_all(connection, statement)


def run_keys(connection: sa.Connection, request: v1.ListRunsRequest, wanted: int) -> Sequence[Sequence[Any]]:
    """Return the keys of the first runs of a page, at most `wanted`; each key ends with the run's number.

    Raises:
        Rejected: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE or EXPERIMENT_NOT_FOUND.
    """
    comparisons = parse_filter(request.filter, RUN_FIELDS)
    orders = parse_order(request.order_by, RUN_ORDERS) or (_NEWEST,)
    after = listing_key(request, *kinds_of(orders))
    scope = scope_of(connection, {request.experiment_id, *request.experiment_ids} - {""}, request.lifecycle)
    conditions = [(comparison, condition(connection, comparison, scope)) for comparison in comparisons]
    asked = _Asked(connection, orders, scope, _ALIVE.get(request.lifecycle, _LIVES), conditions, after, wanted)
    way = way_of(orders[0], comparisons)
    _plan(connection, _TO_WALK)
    if way and (len(orders) == 1 or scope.few):
        return _walked(asked, way)
    return _gathered(asked, _rarest(asked, _RARE))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The request of a listing."""

    rows: sa.Connection
    orders: Sequence[Order]
    scope: Scope
    alive: Sequence[sa.ColumnElement[bool]]
    conditions: Sequence[tuple[Comparison, Condition]]
    after: tuple[Any, ...] | None
    wanted: int
    at_least: dict[int, int] = field(default_factory=dict)
    """How many runs fulfil a condition, by its place among them, as far as they were counted."""


_GONE = sa.select(experiments.c.number).where(experiments.c.deleted)
_ALIVE: dict[int, Sequence[sa.ColumnElement[bool]]] = {
    v1.LIFECYCLE_ALL: (),
    v1.LIFECYCLE_DELETED: (sa.or_(runs.c.deleted, runs.c.experiment.in_(_GONE)),),
}
_LIVES = (~runs.c.deleted,)


def _walked(asked: _Asked, way: ScanPlan) -> Sequence[Sequence[Any]]:
    where = [clause.where for comparison, clause in asked.conditions if not leads(asked.orders[0], comparison)]
    walk = IndexScan(asked.rows, way, asked.scope, [*asked.alive, *where])
    after = asked.after and (asked.after if way.ranked else (0, *asked.after))
    if len(asked.orders) > 1:
        return _led(asked, walk, after and walk.behind_all(*after[:2]))
    keys, rare = _read(asked, walk, after)
    if keys is None:
        return _gathered(asked, rare)
    return keys if way.ranked else [key[1:] for key in keys]


def _led(asked: _Asked, walk: IndexScan, after: Key | None) -> Sequence[Sequence[Any]]:
    """Return the first keys by the first field, which the scan follows, sorted by all fields."""
    keys, rare = _read(asked, walk, after)
    if keys is not None:
        last = keys[-1] if len(keys) == asked.wanted else None
        rare = Condition(sa.true(), walk.between(asked.scope.few or (), after, last))
    return _gathered(asked, rare)


def _read(asked: _Asked, walk: IndexScan, after: Key | None) -> tuple[list[Key] | None, Condition | None]:
    """Return the next keys; or the rarest condition, if reading its runs turns out to be cheaper."""
    rare: Condition | None = None

    def go_on(expected: int) -> bool:
        nonlocal rare
        rare = _rarest(asked, expected)
        return rare is None

    return walk.keys(after, asked.wanted, go_on), rare


def _rarest(asked: _Asked, limit: int) -> Condition | None:
    """Return the condition that the fewest runs fulfil, if they are at most `limit`."""
    rare: Condition | None = None
    for place, (_, clause) in enumerate(asked.conditions):
        if clause.among is not None and asked.at_least.get(place, 0) <= limit:
            candidates = clause.among.limit(limit + 1).subquery()
            count = asked.at_least[place] = asked.rows.scalar(sa.select(sa.func.count()).select_from(candidates)) or 0
            if count <= limit:
                rare, limit = clause, count
    return rare


def _gathered(asked: _Asked, rare: Condition | None) -> Sequence[Sequence[Any]]:
    """Return the keys of all matches, sorted; only runs that fulfil the rare condition are read, if one is given."""
    _plan(asked.rows, _TO_GATHER)
    source: sa.FromClause = runs
    experiment: sa.ColumnElement[int] = runs.c.experiment
    if rare and rare.among is not None:
        # PostgreSQL, which does not know how few they are, is not to begin elsewhere.
        some = rare.among.cte("rare").prefix_with("materialized", dialect="postgresql")
        # An expression that no index has: the rare ones are to be looked up, not the experiment's.
        source, experiment = some.join(runs, runs.c.run == some.c.run), runs.c.experiment + 0
    sorts, source = sorts_of(asked.orders, source)
    statement = sa.select(*(sort.column for sort in sorts)).select_from(source)
    where = [clause.where for _, clause in asked.conditions if not (clause is rare and clause.exact)]
    statement = statement.where(asked.scope.holds(experiment), *asked.alive, *where)
    if asked.after:
        statement = statement.where(behind(sorts, asked.after))
    return [tuple(row) for row in asked.rows.execute(ordered(statement, sorts).limit(asked.wanted))]
