"""How help looks: paragraphs as wide as the terminal, usage lines that name every argument."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App
    from cyclopts.help import DefaultFormatter, HelpPanel
    from rich.console import Console, ConsoleOptions

# Within a paragraph; an indented line, or one after an empty line, begins a line of its own.
_LINE_END: Final = re.compile(r"(?<=\S)\n(?=\S)")
HELP_FLAGS: Final = ("--help", "-h")
_EXAMPLES: Final = "\n\nExamples:\n"


class Flowing:
    """Help as cyclopts shows it, with its texts reflowed."""

    @cached_property
    def _default(self) -> DefaultFormatter:
        # Most command lines ask for no help: they shall not load it.
        from cyclopts.help import DefaultFormatter  # noqa: PLC0415

        return DefaultFormatter()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show a panel."""
        self._default(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Show the usage line."""
        self._default.render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Show what a command does."""
        text = getattr(getattr(description, "primary_renderable", None), "plain", None)
        self._default.render_description(console, options, description if text is None else _flow(text))


def prepare(app: App, tokens: Sequence[str], *, epilogue: str) -> None:
    """Complete the help of the command that `tokens` name; `epilogue` is for the help of the whole program.

    The usage line names every argument, where cyclopts writes "[ARGS...]"; the examples of a docstring come last.
    """
    chain, apps, _ = app.parse_commands([token for token in tokens if token not in HELP_FLAGS])
    leaf = apps[-1]
    if not chain:
        app.help_epilogue = epilogue
    if leaf.default_command is None:
        return
    arguments = [argument for argument in leaf.assemble_argument_collection() if argument.show]
    positional = [argument for argument in arguments if argument.field_info.is_positional]
    parts = ["rollforward", *chain, *map(_argument, positional)]
    parts += ["[OPTIONS]"] * (len(arguments) > len(positional))
    leaf.usage = f"Usage: {' '.join(parts)}"
    text, heading, shown = (inspect.getdoc(leaf.default_command) or "").partition(_EXAMPLES)
    if heading:
        leaf.help, leaf.help_epilogue = text, heading.lstrip() + shown


def _argument(argument: Any) -> str:
    several = argument.field_info.kind is argument.field_info.VAR_POSITIONAL
    name = f"{argument.name}{'...' * several}"
    return name if argument.required else f"[{name}]"


def _flow(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(_LINE_END.sub(" ", text) + "\n")
