"""How help looks: paragraphs are as wide as the terminal, however wide they are written."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpPanel
    from rich.console import Console, ConsoleOptions

# Within a paragraph; what is indented, or stands behind an empty line, begins a line of its own.
_LINE_END: Final = re.compile(r"(?<=\S)\n(?=\S)")


class Flowing:
    """Help as cyclopts shows it, with its texts as they flow."""

    @cached_property
    def _usual(self) -> DefaultFormatter:
        # Most command lines ask for no help: they shall not load it.
        from cyclopts.help import DefaultFormatter  # noqa: PLC0415

        return DefaultFormatter()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show a panel."""
        self._usual(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Show the line that says how a command is used."""
        self._usual.render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Show what a command does."""
        text = getattr(getattr(description, "primary_renderable", None), "plain", None)
        self._usual.render_description(console, options, description if text is None else _flow(text))


def _flow(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(_LINE_END.sub(" ", text) + "\n")
