"""Write the reference of the command line, in Markdown, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import groupby

from cyclopts import App, Argument

from rollforward.cli.app import COMMANDS, command_line
from rollforward.cli.help import prepare
from rollforward.cli.options import EVERYWHERE


def reference() -> str:
    """Return a section for each group of commands, with a subsection for each command."""
    root = command_line([name for name, *_ in COMMANDS])
    groups = sorted({group for _, _, group, _ in COMMANDS}, key=lambda group: str(group.sort_key))
    parts = []
    for group in groups:
        parts.append(f"## {group.name}\n")
        for name, _, home, _ in COMMANDS:
            if home is group:
                parts += [_section(root, path) for path in _leaves(root[name], (name,))]
    return "\n".join(parts)


def _leaves(app: App, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if app.default_command is not None:
        yield path
        return
    for name in app:
        if not name.startswith("-"):
            yield from _leaves(app[name], (*path, name))


def _section(root: App, path: tuple[str, ...]) -> str:
    app = root
    prepare(root, path, epilogue="")
    for name in path:
        app = app[name]
    parts = [f"### rollforward {' '.join(path)}\n", f"```text\n{str(app.usage).removeprefix('Usage: ')}\n```\n"]
    parts.append(f"{inspect.cleandoc(str(app.help))}\n")
    shown = [argument for argument in app.assemble_argument_collection() if argument.show]
    own = [argument for argument in shown if not _is_common(argument)]
    for positional, arguments in groupby(own, key=lambda argument: argument.field_info.is_positional):
        parts.append(_table("argument" if positional else "option", list(arguments)))
    if len(own) < len(shown):
        parts.append("Takes the [options of every command](#options-of-every-command) too.\n")
    examples = [line.strip() for line in str(app.help_epilogue).partition("Examples:")[2].splitlines()]
    parts.append("\n".join(["```sh", *filter(None, examples), "```\n"]))
    return "\n".join(parts)


def options_of_every_command() -> str:
    """Return the table of the options that every command takes, from one that takes all of them."""
    app = command_line(["aliases"])["aliases"]["move"]
    shown = [argument for argument in app.assemble_argument_collection() if argument.show]
    return _table("option", list(filter(_is_common, shown)))


def _is_common(argument: Argument) -> bool:
    group = argument.parameter.group
    return isinstance(group, tuple) and EVERYWHERE in group


def _table(heading: str, arguments: list[Argument]) -> str:
    rows = [f"| {heading} | effect |", "|---|---|"]
    return "\n".join([*rows, *map(_row, arguments)]) + "\n"


def _row(argument: Argument) -> str:
    names = ", ".join(f"`{name}`" for name in argument.names)
    metavar = f" `{argument.parameter.metavar}`" if argument.parameter.metavar else ""
    notes = []
    if argument.required:
        notes.append("Required.")
    if choices := argument.get_choices():
        notes.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    if argument.parameter.env_var:
        notes.append(f"Environment: {', '.join(f'`{name}`' for name in argument.parameter.env_var)}.")
    default = argument.field_info.default
    if default not in (None, "", (), False, inspect.Parameter.empty):
        notes.append(f"Default `{default}`.")
    text = " ".join([argument.parameter.help or "", *notes]).strip()
    return f"| {names}{metavar} | {_escaped(text)} |"


def _escaped(text: str) -> str:
    """Keep what Markdown or a table would take for markup."""
    parts = text.replace("|", r"\|").split("`")
    parts[::2] = [part.replace("*", r"\*").replace("<", "&lt;").replace("[", r"\[") for part in parts[::2]]
    return "`".join(parts)
