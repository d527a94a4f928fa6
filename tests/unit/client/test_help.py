"""Help fits the terminal that it is shown on."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rollforward.cli.app import run


def test_paragraphs_are_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 60
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["runs", "watch", "--help"]) == 0
    shown = capsys.readouterr().out
    paragraph = next(text for text in shown.split("\n\n") if text.startswith("On a terminal")).splitlines()
    for line, following in pairwise(paragraph):
        assert len(line) <= width <= len(f"{line.rstrip()} {following.split()[0]}")
    assert "\n    rollforward runs watch RUN_ID\n" in shown
