"""The layout of help in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

from tests.timeouts import scaled


def test_help_paragraphs_fill_the_terminal() -> None:
    width = 60
    command = [sys.executable, "-m", "rollforward.cli", "runs", "watch", "--help"]
    environment = {**os.environ, "COLUMNS": str(width), "PYTHONUTF8": "1"}
    shown = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=scaled(60), check=True
    ).stdout
    paragraph = next(text for text in shown.split("\n\n") if text.startswith("On a terminal")).splitlines()
    for line, following in pairwise(paragraph):
        assert len(line) <= width <= len(f"{line.rstrip()} {following.split()[0]}")
    assert "\n    rollforward runs watch RUN\n" in shown
