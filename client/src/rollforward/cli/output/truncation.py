"""The limit on the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# The layout takes about a millisecond per row, and nobody reads more.
MAX_ROWS: Final = 500


def truncated(rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    """Return the first rows, and one with the number of omitted rows."""
    if len(rows) <= MAX_ROWS:
        return rows
    more = f"... {len(rows) - MAX_ROWS} more rows: use -o json"
    return [*rows[:MAX_ROWS], (more, *("" for _ in rows[0][1:]))]
