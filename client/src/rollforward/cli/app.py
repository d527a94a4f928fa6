"""The tree of commands, and their execution; only the modules that a command needs are imported."""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError, Group, Parameter

from rollforward._printable import printable
from rollforward.cli.help import HELP_FLAGS, ReflowingFormatter, prepare
from rollforward.cli.options import EVERYWHERE_HELP, examples
from rollforward.cli.output.failures import report_error, report_usage_error

_ALIASES: Final = Group("Aliases and their history", sort_key=1)
_NOUNS: Final = Group("Runs and models", sort_key=0)
_SYSTEM: Final = Group("Operations", sort_key=2)
_SERVER: Final = Group("Commands of the server", sort_key=3)

# Name, module and attribute, group, and line in the list of commands.
COMMANDS: Final = (
    ("experiments", "rollforward.cli.tracking.experiments:app", _NOUNS, "Create, find and change experiments."),
    ("runs", "rollforward.cli.tracking.runs:app", _NOUNS, "Find, compare, watch and change runs."),
    (
        "logged-models",
        "rollforward.cli.tracking.logged_models:app",
        _NOUNS,
        "Find and change the models that runs logged.",
    ),
    ("models", "rollforward.cli.registry.models:app", _NOUNS, "Create and change models, register versions."),
    ("versions", "rollforward.cli.registry.versions:app", _NOUNS, "Find, compare, copy and change versions."),
    ("policies", "rollforward.cli.registry.policies:policies", _NOUNS, "Protect aliases and registrations."),
    ("gates", "rollforward.cli.registry.policies:gates", _NOUNS, "Evaluate a gate on versions or on past moves."),
    (
        "artifacts",
        "rollforward.cli.tracking.artifacts:artifacts",
        _NOUNS,
        "List files of artifacts, remove unreferenced ones.",
    ),
    ("download", "rollforward.cli.tracking.download:download", _NOUNS, "Download an artifact and verify every byte."),
    (
        "webhooks",
        "rollforward.cli.operations.webhooks:app",
        _NOUNS,
        "Send every change of an alias to an HTTP endpoint.",
    ),
    (
        "aliases",
        "rollforward.cli.registry.aliases:app",
        _ALIASES,
        "Move, look up and remove aliases, show their history.",
    ),
    ("schedules", "rollforward.cli.registry.schedules:app", _ALIASES, "Schedule moves, list and cancel them."),
    ("rollback", "rollforward.cli.registry.rollback:rollback", _ALIASES, "Restore past assignments of aliases."),
    ("watch", "rollforward.cli.registry.watch_aliases:watch", _ALIASES, "Print changes of aliases as they happen."),
    ("blame", "rollforward.cli.registry.history:blame", _ALIASES, "Show why an alias points to its version."),
    (
        "diff",
        "rollforward.cli.registry.diff:diff",
        _ALIASES,
        "Compare aliases at two times, or before and after a move.",
    ),
    (
        "audit",
        "rollforward.cli.operations.audit:app",
        _SYSTEM,
        "List and export recorded events, recompute gate results.",
    ),
    ("deployments", "rollforward.cli.operations.system:deployments", _SYSTEM, "Show which pod serves which version."),
    ("sync", "rollforward.cli.tracking.sync:sync", _SYSTEM, "Deliver what offline or dead jobs logged."),
    (
        "rebuild",
        "rollforward.cli.operations.system:rebuild",
        _SYSTEM,
        "Rebuild a read model from its log, and compare.",
    ),
    ("snapshot", "rollforward.cli.operations.system:snapshot", _SYSTEM, "Save a snapshot of a read model."),
    ("status", "rollforward.cli.operations.system:status", _SYSTEM, "Show the state of the logs and the read models."),
    ("version", "rollforward.cli.version:version", _SYSTEM, "Print the version of this client."),
    ("completion", "rollforward.cli.completion:completion", _SYSTEM, "Print a completion script for a shell."),
    ("up", "rollforward.cli.server_commands:up", _SERVER, "Start NATS and all services in one process."),
    ("start", "rollforward.cli.server_commands:start", _SERVER, "Start one service with an external NATS server."),
    (
        "serve",
        "rollforward.cli.server_commands:serve",
        _SERVER,
        "Serve the versions that aliases point to, and follow their moves.",
    ),
    (
        "backup",
        "rollforward.cli.server_commands:backup",
        _SERVER,
        "Back up logs and artifacts while services run.",
    ),
    ("restore", "rollforward.cli.server_commands:restore", _SERVER, "Restore a backup into an empty system."),
    (
        "demo",
        "rollforward.cli.server_commands:demo",
        _SERVER,
        "Run the whole lifecycle on real data, in one or two minutes.",
    ),
)

HELP: Final = "Track runs, register models, move aliases, watch them, and roll back."

_EPILOGUE: Final = (
    EVERYWHERE_HELP
    + """

They may come before or after the command.

Exit codes: 0 done; 1 rejected, failed or unreachable; 2 wrong usage; 130 interrupted.

"""
    + examples(
        "up",
        "--server registry.example:50051 -o json models list",
        "aliases move fraud-detector@champion v3 --reason 'beats v2'",
        "rollback fraud-detector@champion",
    )
)

# The options of every command, with and without a value.
_WITH_VALUE: Final = ("--server", "--output", "-o", "--timeout", "--epoch", "--actor")
_WITHOUT: Final = ("--stale",)


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Names are UTF-8, and the terminal's encoding may not have all characters.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", UserWarning)
    try:
        code = _call(tokens)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def _call(tokens: Sequence[str]) -> int:
    ordered = _options_last(tokens)
    as_json = _wants_json(ordered)
    try:
        app = command_line(ordered)
        if {*HELP_FLAGS} & {*ordered}:
            prepare(app, ordered, epilogue=_EPILOGUE)
        result = app(ordered, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return report_usage_error(error, as_json=as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        code = report_error(error, as_json=as_json)
        if code is None:
            raise
        return code
    finally:
        _close()
    return result if isinstance(result, int) else 0


def command_line(tokens: Sequence[str]) -> App:
    """Return the program's commands, for the command line in `tokens`."""
    app = App(
        name="rollforward",
        help=HELP,
        help_format="plaintext",
        help_formatter=ReflowingFormatter(),
        version=_version,
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=8)
    for name, home, group, line in COMMANDS:
        # The requested command has a longer description of its own.
        app.command(home, name=name, group=group, help=None if name in tokens else line)
    return app


def _version() -> str:
    from rollforward.cli.version import version_text  # noqa: PLC0415 - only needed for --version

    return version_text()


def _options_last(tokens: Sequence[str]) -> list[str]:
    """Return the tokens with the options before the command moved to the end."""
    start = 0
    while start < len(tokens) and (name := tokens[start].partition("=")[0]) in {*_WITH_VALUE, *_WITHOUT}:
        start += 1 if "=" in tokens[start] or name in _WITHOUT else 2
    leading, rest = list(tokens[:start]), list(tokens[start:])
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def _wants_json(tokens: Sequence[str]) -> bool:
    """Return whether to print errors as JSON, even if the command line is invalid."""
    given = [*tokens[: tokens.index("--")]] if "--" in tokens else [*tokens]
    pairs = [given[at : at + 2] for at in range(len(given))]
    separate = any(pair in (["-o", "json"], ["--output", "json"]) for pair in pairs)
    return separate or bool({"-ojson", "-o=json", "--output=json"} & {*given})


def _close() -> None:
    # Do not load gRPC after a command that never connected.
    if "rollforward._transport.default" in sys.modules:
        sys.modules["rollforward._transport.default"].close()


def _drop_output() -> None:
    # The reader closed the pipe. Without this, Python would report the unwritten buffer at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
