"""The tree of commands of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from cyclopts import App

from rollforward.cli.app import COMMANDS, command_line

# Commands of the server, which do not have the global options.
SERVER = ("up", "start", "serve", "demo", "backup", "restore")
# Commands that print a script or a line.
WITHOUT_OPTIONS = (*SERVER, "completion")


@cache
def leaves() -> dict[tuple[str, ...], App]:
    """Return every command without subcommands, by its path."""
    root = command_line([name for name, *_ in COMMANDS])
    return dict(_walk(root, ()))


def _walk(app: App, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    if app.default_command is not None:
        yield path, app
        return
    for name in app:
        if not name.startswith("-"):
            yield from _walk(app[name], (*path, name))
