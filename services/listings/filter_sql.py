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


def compared(connection: sa.Connection, column: sa.ColumnElement[Any], how: Comparison) -> sa.ColumnElement[bool]:
    """Return a comparison of a column that holds a text or a number."""
    match how.operator:
        case "IN":
            return column.in_(_listed(how))
        case "NOT IN":
            return column.not_in(_listed(how))
        case "LIKE":
            return _like(connection, column, str(how.value))
        case "ILIKE":
            # Both databases know the small letters of A to Z only.
            return _like(connection, sa.func.lower(column), _lowered(str(how.value)))
        case sign:
            condition: sa.ColumnElement[bool] = _SIGNS[sign](column, _bound(how))
            return condition


def compared_tag(
    connection: sa.Connection, tags: sa.Table, owner: Sequence[sa.ColumnElement[bool]], how: Comparison
) -> sa.ColumnElement[bool]:
    """Return a comparison of one tag; a tag that is not there is only IS NULL.

    Args:
        rows: Where it is asked.
        tags: The table of the tags, with `key` and `value`.
        owner: What makes a tag one of the row's.
        how: The comparison.
    """
    tag = sa.select(sa.literal(1)).select_from(tags).where(*owner, tags.c.key == how.key)
    if how.operator == "IS NULL":
        return ~tag.exists()
    return (
        tag.exists() if how.operator == "IS NOT NULL" else tag.where(compared(connection, tags.c.value, how)).exists()
    )


def compared_metric(value: sa.ColumnElement[float], how: Comparison) -> sa.ColumnElement[bool]:
    """Return a comparison of a metric's value, in which NULL is NaN: different from every number."""
    condition: sa.ColumnElement[bool] = _SIGNS[how.operator](value, sa.literal(float(_number(how)), sa.Double()))
    return sa.or_(condition, value.is_(None)) if how.operator == "!=" else condition


def compared_time(column: sa.ColumnElement[int], how: Comparison) -> sa.ColumnElement[bool]:
    """Return a comparison of a column of nanoseconds by its whole milliseconds, in a form that can use an index."""
    # More than any time has, and not infinite.
    number = max(-_FAR, min(_number(how), _FAR))
    up, down = math.ceil(number) * MILLISECOND, (math.floor(number) + 1) * MILLISECOND
    match how.operator:
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
    """Return a column of nanoseconds as the whole milliseconds that filters speak of."""
    return column // sa.literal(MILLISECOND, sa.BigInteger)


def _bound(how: Comparison) -> sa.ColumnElement[Any]:
    # Said to the database, because PostgreSQL would round a fraction that is compared with a whole number.
    if isinstance(how.value, str):
        return sa.literal(how.value, TEXT)
    return sa.literal(how.value, sa.BigInteger() if isinstance(how.value, int) else sa.Double())


def _number(how: Comparison) -> int | float:
    if not isinstance(how.value, int | float):
        raise TypeError(f"not a number: {how.value!r}")
    return how.value


def _listed(how: Comparison) -> tuple[str, ...]:
    if not isinstance(how.value, tuple):
        raise TypeError(f"not a list: {how.value!r}")
    return how.value


def _like(connection: sa.Connection, column: sa.ColumnElement[str], pattern: str) -> sa.ColumnElement[bool]:
    if connection.dialect.name == "sqlite":  # whose LIKE takes small letters for capital ones
        return column.op("GLOB", is_comparison=True)(translate(pattern, _in_glob, any_text="*", any_char="?"))
    return column.like(translate(pattern, _in_like, any_text="%", any_char="_"), escape="!")


def _in_glob(char: str) -> str:
    return f"[{char}]" if char in "*?[" else char


def _in_like(char: str) -> str:
    return f"!{char}" if char in "%_!" else char


def _lowered(pattern: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in pattern)
