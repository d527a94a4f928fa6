"""Tables that show the first of very many rows, and say how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# A table takes about a millisecond a row to lay out, and nobody reads on.
MAX_ROWS: Final = 500


def shortened(rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    """Return the first rows, and one more that says how many are left out."""
    if len(rows) <= MAX_ROWS:
        return rows
    more = f"... {len(rows) - MAX_ROWS} more, shown by -o json"
    return [*rows[:MAX_ROWS], (more, *("" for _ in rows[0][1:]))]
