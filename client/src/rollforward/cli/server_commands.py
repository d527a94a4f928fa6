"""The commands of the server distribution, if it is installed; the client never imports it directly."""

from importlib.metadata import entry_points
from typing import Any, Final

from rollforward.cli.output.failures import UsageError

GROUP: Final = "rollforward.commands"
_NAMES: Final = frozenset({"up", "start", "serve", "demo", "backup", "restore"})


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    commands = entry_points(group=GROUP, name=name)
    if not commands:
        raise UsageError(f"`rollforward {name}` requires the server: pip install 'rollforward-server[sklearn]'")
    return next(iter(commands)).load()
