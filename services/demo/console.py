"""How the demo speaks: steps, what it does, commands that anyone could type, and waiting."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from rollforward.cli.app import run as run_command
from rollforward.cli.output.tables import grid, print_table

STEPS = 6

_console = Console(highlight=False)


class StepFailed(Exception):
    """A step of the demo did not hold; the message says which part."""


def check(holds: bool, otherwise: str) -> None:
    """Raise StepFailed unless something holds."""
    if not holds:
        raise StepFailed(otherwise)


def step(number: int, title: str) -> None:
    """Begin a step."""
    _console.print()
    _console.print(Text(f"[{number}/{STEPS}] {title}", style="bold"))


def say(text: str) -> None:
    """Say something, in lines as wide as the terminal."""
    _console.print(Text(text))


def payloads(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table."""
    print_table(grid(headers, rows))


def code(line: str) -> None:
    """Show a line of Python that was just run."""
    _console.print(Text(f">>> {line}", style="cyan"), soft_wrap=True)


def shown(*arguments: str) -> str:
    """Show a command as anyone could type it."""
    line = shlex.join(("rollforward", *arguments))
    _console.print(Text(f"$ {line}", style="cyan"), soft_wrap=True)
    sys.stdout.flush()
    return line


def command(*arguments: str) -> None:
    """Show a command, run it, and raise StepFailed unless it was done."""
    line = shown(*arguments)
    check(run_command(arguments) == 0, f"`{line}` was not done")


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Say what takes a while; on a terminal something moves meanwhile."""
    if _console.is_terminal:
        with _console.status(Text(text)):
            yield
    else:
        say(text)
        yield
    sys.stdout.flush()
