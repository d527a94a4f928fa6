"""Tables: one line a row where nobody breaks lines, however long a text is."""

from __future__ import annotations

import io

from rich.console import Console

from rollforward.cli.output import grid


def printed(*rows: tuple[str, str]) -> list[str]:
    """The lines of a table, as a pipe gets them."""
    out = io.StringIO()
    Console(file=out, width=1000).print(grid(("REVISION>", "WHY"), rows))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_text_that_is_very_long_is_cut_in_a_table() -> None:
    _, line = printed(("17", "😀" * 4_000))
    assert line == f"      17  {'😀' * 299}…"
    _, line = printed(("17", "r" * 300))
    assert line == f"      17  {'r' * 300}"
