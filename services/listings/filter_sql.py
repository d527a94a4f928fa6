"""Filters in SQL: the same rows for the same filter in SQLite and PostgreSQL."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from services.listings.filter_grammar import Comparison, translate
from services.sql.columns import TEXT

MILLISECOND = 1_000_000
"""In nanoseconds, the unit of times in rows."""

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compared(
    connection: sa.Connection, column: sa.ColumnElement[Any], comparison: Comparison
) -> sa.ColumnElement[bool]:
    """Return the condition of a comparison with a column of text or numbers."""
    match comparison.operator:
        case "IN":
            return column.in_(_listed(comparison))
        case "NOT IN":
            return column.not_in(_listed(comparison))
        case "LIKE":
            return _like(connection, column, str(comparison.value))
        case "ILIKE":
            # Both databases lower A to Z only.
            return _like(connection, sa.func.lower(column), _lowered(str(comparison.value)))
        case sign:
            condition: sa.ColumnElement[bool] = _SIGNS[sign](column, _bound(comparison))
            return condition


def compared_tag(
    connection: sa.Connection, tags: sa.Table, owner: Sequence[sa.ColumnElement[bool]], comparison: Comparison
) -> sa.ColumnElement[bool]:
    """Return the condition of a comparison with one tag; a missing tag matches only IS NULL.

    Args:
        connection: The connection, whose dialect is used.
        tags: The table of the tags, with `key` and `value`.
        owner: The conditions that select the tags of a row.
        comparison: The comparison.
    """
    tag = sa.select(sa.literal(1)).select_from(tags).where(*owner, tags.c.key == comparison.key)
    if comparison.operator == "IS NULL":
        return ~tag.exists()
    return (
        tag.exists()
        if comparison.operator == "IS NOT NULL"
        else tag.where(compared(connection, tags.c.value, comparison)).exists()
    )


def compared_metric(value: sa.ColumnElement[float], comparison: Comparison) -> sa.ColumnElement[bool]:
    """Return the condition of a comparison with a metric, where NULL is NaN: different from every number."""
    condition: sa.ColumnElement[bool] = _SIGNS[comparison.operator](
        value, sa.literal(float(_number(comparison)), sa.Double())
    )
    return sa.or_(condition, value.is_(None)) if comparison.operator == "!=" else condition


def compared_time(column: sa.ColumnElement[int], comparison: Comparison) -> sa.ColumnElement[bool]:
    """Return the condition of a comparison with a column of nanoseconds, by whole milliseconds; it can use an index."""
    # Beyond every time, and finite.
    number = max(-_FAR, min(_number(comparison), _FAR))
    up, down = math.ceil(number) * MILLISECOND, (math.floor(number) + 1) * MILLISECOND
    match comparison.operator:
        case "<":
            return _before(column, up)
        case "<=":
            return _before(column, down)
        case ">":
            return _since(column, down)
        case ">=":
            return _since(column, up)
        case "=":
            return sa.and_(_since(column, up), _before(column, down))
        case _:
            return sa.or_(_before(column, up), _since(column, down))


_FAR = 2**63


def _before(column: sa.ColumnElement[int], bound: int) -> sa.ColumnElement[bool]:
    if bound <= -_FAR:
        return sa.false()
    return column < sa.literal(bound, sa.BigInteger) if bound < _FAR else column.is_not(None)


def _since(column: sa.ColumnElement[int], bound: int) -> sa.ColumnElement[bool]:
    if bound >= _FAR:
        return sa.false()
    return column >= sa.literal(bound, sa.BigInteger) if bound > -_FAR else column.is_not(None)


def milliseconds(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return a column of nanoseconds in whole milliseconds, the unit of filters."""
    return column // sa.literal(MILLISECOND, sa.BigInteger)


def _bound(comparison: Comparison) -> sa.ColumnElement[Any]:
    # Typed, because PostgreSQL would round a fraction that is compared with an integer.
    if isinstance(comparison.value, str):
        return sa.literal(comparison.value, TEXT)
    return sa.literal(comparison.value, sa.BigInteger() if isinstance(comparison.value, int) else sa.Double())


def _number(comparison: Comparison) -> int | float:
    if not isinstance(comparison.value, int | float):
        raise TypeError(f"expected a number, got {comparison.value!r}")
    return comparison.value


def _listed(comparison: Comparison) -> tuple[str, ...]:
    if not isinstance(comparison.value, tuple):
        raise TypeError(f"expected a list, got {comparison.value!r}")
    return comparison.value


def _like(connection: sa.Connection, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    if connection.dialect.name == "sqlite":  # its LIKE ignores case
        return column.op("GLOB", is_comparison=True)(translate(pattern, _in_glob, any_text="*", any_char="?"))
    return column.like(translate(pattern, _in_like, any_text="%", any_char="_"), escape="!")


def _in_glob(char: str) -> str:
    return f"[{char}]" if char in "*?[" else char


def _in_like(char: str) -> str:
    return f"!{char}" if char in "%_!" else char


def _lowered(pattern: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in pattern)
