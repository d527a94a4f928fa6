"""The layout of tables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from datetime import timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from rollforward.cli.output.tables import duration_text, grid, print_table, short_id


def printed(
    *rows: Sequence[str], headers: Sequence[str] = ("REVISION>", "REASON"), width: int = 1000, empty: str = "nothing"
) -> list[str]:
    """Return the lines of a table."""
    out = io.StringIO()
    Console(file=out, width=width).print(grid(headers, rows, empty=empty))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_long_text_is_cut_in_a_table() -> None:
    _, line = printed(("17", "😀" * 4_000))
    assert line.startswith(f"      17  {'😀' * 400}")
    assert line.endswith("…")
    assert cell_len(line) <= 1000
    _, line = printed(("17", "r" * 300))
    assert line == f"      17  {'r' * 300}"


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_table_fits_the_terminal_without_breaking_lines(width: int) -> None:
    cells = ("0123456789ab", "a name of many words", "finished", "why it was moved, at length and in detail")
    header, line = printed(cells, headers=("RUN", "NAME~", "STATUS", "REASON"), width=width)
    assert len(line) <= width
    assert header.split()[:3] == ["RUN", "NAME", "STATUS"]
    # Ids are whole, so that they can be copied; cut columns end with an ellipsis.
    for cell, given in zip(re.split(r"  +", line), cells, strict=False):
        assert cell == given or (cell.endswith("…") and given.startswith(cell[:-1].rstrip()))
    assert line.startswith("0123456789ab  ")


def test_empty_table_has_a_message() -> None:
    assert printed(empty="no runs match") == ["no runs match"]


def test_wide_table_is_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(grid(("RUN", "REASON"), [("1", "r" * 5_000)]), wide=True)
    assert capsys.readouterr().out.splitlines()[1] == f"1    {'r' * 5_000}"


def test_ids_are_shortened_in_a_table() -> None:
    assert short_id("0123456789abcdef0123456789abcdef") == "0123456789ab"
    assert short_id("m-0123456789abcdef0123456789abcdef") == "m-0123456789ab"
    assert short_id("0123456789abcdef", wide=True) == "0123456789abcdef"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2s"), (59.94, "59.9s"), (61, "1m 1s"), (7200, "2h"), (200_000, "2d 7h")]
)
def test_duration_text_has_units(seconds: float, text: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == text
