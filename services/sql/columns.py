"""Columns and conditions that mean the same in SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that both order by code point, as Python does."""


def among(
    dialect: str, column: sa.ColumnElement[int], numbers: Sequence[int] | None = None, *, named: str = "numbers"
) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of these numbers; they take one parameter, however many they are.

    Without `numbers` it is left open, under a name, for what `in_one` makes of them.
    """
    given = sa.bindparam(named, type_=sa.Text()) if numbers is None else sa.literal(in_one(dialect, numbers))
    if dialect == "postgresql":
        return column == sa.any_(sa.cast(given, ARRAY(sa.BigInteger)))
    return column.in_(sa.select(sa.func.json_each(given).table_valued("value").c.value))


def in_one(dialect: str, numbers: Sequence[int]) -> str:
    """Return numbers as one text parameter."""
    begin, end = "{}" if dialect == "postgresql" else "[]"
    return f"{begin}{','.join(map(str, numbers))}{end}"
