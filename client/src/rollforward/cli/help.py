"""The format of help: paragraphs as wide as the terminal, and usage lines with every argument."""

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

# A line break within a paragraph; an indented line, or one after an empty line, starts a new line.
_LINE_END: Final = re.compile(r"(?<=\S)\n(?=\S)")
HELP_FLAGS: Final = ("--help", "-h")
_EXAMPLES: Final = "\n\nExamples:\n"


class ReflowingFormatter:
    """The formatter of cyclopts, with reflowed paragraphs."""

    @cached_property
    def _default(self) -> DefaultFormatter:
        # Loaded here, because most commands print no help.
        from cyclopts.help import DefaultFormatter  # noqa: PLC0415

        return DefaultFormatter()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        self._default(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the usage line."""
        self._default.render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print a command's description."""
        text = getattr(getattr(description, "primary_renderable", None), "plain", None)
        self._default.render_description(console, options, description if text is None else _reflow(text))


def prepare(app: App, tokens: Sequence[str], *, epilogue: str) -> None:
    """Complete the help of the command in `tokens`; `epilogue` is for the help of the whole program.

    The usage line names every argument, in place of cyclopts' "[ARGS...]", and a docstring's examples come last.
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


def _reflow(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(_LINE_END.sub(" ", text) + "\n")
