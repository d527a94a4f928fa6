"""The order of the demo: its six steps on one stage, and what is left when the curtain falls."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rollforward as rf
from services.demo import move_and_rollback, train_and_serve
from services.demo.console import StepFailed, say
from services.demo.processes import Children

_KEPT_DIRECTORY = Path("rollforward-demo")
_LATER = (
    f"models show {train_and_serve.MODEL}",
    f"aliases move {train_and_serve.CHAMPION} v2 --reason 'again'",
    f"rollback {train_and_serve.CHAMPION}",
    f"audit list --model {train_and_serve.MODEL}",
    f"serve {train_and_serve.CHAMPION}",
)


def play(data: Path | None) -> int:
    """Run the demo and return the exit code: 0 if every step passed, else 1."""
    started = time.monotonic()
    try:
        with _scratch() as scratch, Children(scratch) as children:
            summary = _steps(scratch, data, children)
    except (StepFailed, rf.RollforwardError) as error:
        print(f"rollforward: the demo failed: {error}", file=sys.stderr)
        return 1
    say(f"\nAll six steps passed: {summary}; {time.monotonic() - started:.0f} s.")
    _what_next(data)
    return 0


def _steps(scratch: Path, data: Path | None, children: Children) -> str:
    stage = train_and_serve.start(scratch, (data or scratch / "data").absolute(), children)
    with rf.Client(stage.address) as stage.client:
        train_and_serve.train(stage)
        train_and_serve.register(stage)
        train_and_serve.serve(stage)
        moved = move_and_rollback.move(stage)
        return f"{moved}; {move_and_rollback.look_back(stage)}"


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rollforward-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _what_next(data: Path | None) -> None:
    installed = Path(sys.executable).parent / "rollforward"
    tool = "rollforward" if shutil.which("rollforward") else min(os.path.relpath(installed), str(installed), key=len)
    directory = data or _KEPT_DIRECTORY
    say("What to try next" + (":" if data else ", keeping everything this time:"))
    if data is None:
        print(f"    {tool} demo --data {directory}")
    print(f"    {tool} up --data {directory}")
    say("and then, in another terminal:")
    for line in _LATER:
        print(f"    {tool} {line}")
