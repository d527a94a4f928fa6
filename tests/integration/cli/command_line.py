"""The real `rollforward` program, run to its end, and its results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.timeouts import scaled

SCRIPT = Path(sys.executable).with_name("rollforward")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SECONDS = scaled(60)

Cli = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    """Return the environment without variables that change the output, and with `more`."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("ROLLFORWARD_", "COLUMNS"))}
    return {**plain, "PYTHONUTF8": "1", **more}


def program(address: str) -> Cli:
    """Return a function that runs the program against the services at an address."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        variables = environment(**{"ROLLFORWARD_URI": address, **more})
        return subprocess.run(
            [SCRIPT, *arguments], capture_output=True, text=True, env=variables, timeout=SECONDS, check=False
        )

    return run


def done(result: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that succeeded without printing to standard error."""
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON document that a command printed."""
    return json.loads(done(result))


def refused(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the reason in the single line of text or JSON that a rejected command printed."""
    assert (result.returncode, result.stdout) == (code, ""), result
    assert result.stderr.count("\n") == 1, result.stderr
    if result.stderr.startswith("{"):
        return json.loads(result.stderr)["error"]["reason"] or ""
    found = re.match(r"rollforward: ([A-Z_]+): \S", result.stderr)
    return found[1] if found else ""


@dataclass(frozen=True)
class SampleData:
    """The test data: two runs with files, and a model with two versions."""

    experiment: str
    runs: tuple[str, str]
    model: str
    files: Path
