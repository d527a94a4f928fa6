"""Which commands there are, and how one is run: nothing is imported but what the command at hand needs."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Group

from rollforward.cli.failures import explain, say
from rollforward.cli.help import Flowing

_SERVER: Final = Group("Commands of the server", sort_key=2)

# Name, home, group, and what the list of commands says of it.
COMMANDS: Final = (
    ("experiments", "rollforward.cli.experiments:app", None, "Experiments: list, show, create, tag, delete, ..."),
    ("runs", "rollforward.cli.runs:app", None, "Runs: list, show, compare, watch, metrics, tag, delete, ..."),
    ("logged-models", "rollforward.cli.logged_models:app", None, "Logged models: list, show, tag, delete, restore."),
    ("models", "rollforward.cli.models:app", None, "Models: list, show, create, register, gate, rename, ..."),
    ("versions", "rollforward.cli.versions:app", None, "Versions: list, show, diff, tag, status, copy, delete, ..."),
    (
        "alias",
        "rollforward.cli.aliases:app",
        None,
        "Aliases: move, get, list, remove, history, schedule, ...",
    ),
    ("rollback", "rollforward.cli.rollback:rollback", None, "Bring past assignments of aliases back."),
    ("watch", "rollforward.cli.watching:watch", None, "Follow aliases as they move."),
    ("blame", "rollforward.cli.history:blame", None, "Why an alias names the version that it names."),
    ("diff", "rollforward.cli.differences:diff", None, "Which aliases differ between two points; what a move changed."),
    ("policy", "rollforward.cli.policies:policy", None, "Policies: set, protect, list, remove."),
    ("gate", "rollforward.cli.policies:gate", None, "Gates: test one on versions, replay one over past moves."),
    ("download", "rollforward.cli.downloads:download", None, "Download an artifact, every byte verified."),
    ("sync", "rollforward.cli.sync:sync", None, "Deliver what jobs logged offline, or left behind."),
    ("artifacts", "rollforward.cli.artifacts:artifacts", None, "Artifacts: list files, get them, collect garbage."),
    ("serving", "rollforward.cli.operations:serving", None, "Serving: which pod serves which version."),
    ("webhooks", "rollforward.cli.webhooks:app", None, "Webhooks: tell an HTTP endpoint of every change."),
    ("audit", "rollforward.cli.audit:app", None, "Audit: list recorded events, export them, recompute gates."),
    ("rebuild", "rollforward.cli.operations:rebuild", None, "Compute a read model from its log again, and compare."),
    ("snapshot", "rollforward.cli.operations:snapshot", None, "Keep a snapshot of a read model in the object store."),
    ("status", "rollforward.cli.operations:status", None, "The state of the logs and the read models."),
    ("version", "rollforward.cli.operations:version", None, "The version of this client."),
    ("up", "rollforward.cli.server:up", _SERVER, "Start NATS and all services in one process."),
    ("run", "rollforward.cli.server:run", _SERVER, "Start one service."),
    ("serve", "rollforward.cli.server:serve", _SERVER, "Serve the versions that aliases name, and follow them."),
    ("demo", "rollforward.cli.server:demo", _SERVER, "The whole lifecycle on real data, in under a minute."),
)

HELP: Final = """\
Track runs, register models, move aliases, follow them, and roll back.

The services are at --server or ROLLFORWARD_URI, else at localhost:50051.
The options of every command may stand in front of it:

    rollforward --server registry.example:50051 -o json models list

Exit codes: 0 done; 1 refused or failed; 2 the command line is wrong."""

# The options that every command takes, each with a value.
_EVERYWHERE: Final = ("--server", "--output", "-o", "--timeout")


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Names are UTF-8 whatever this terminal can show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _call(tokens)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def _call(tokens: Sequence[str]) -> int:
    try:
        result = command_line(tokens)(
            _ordered(tokens), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        return _usage(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        code = explain(error)
        if code is None:
            raise
        return code
    finally:
        _close()
    return result if isinstance(result, int) else 0


def command_line(tokens: Sequence[str]) -> App:
    """The program's commands, for one command line."""
    app = App(
        name="rollforward",
        help=HELP,
        help_format="plaintext",
        help_formatter=Flowing(),
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=3)
    for name, home, group, line in COMMANDS:
        # The command at hand describes itself, at greater length.
        app.command(home, name=name, group=group, help=None if name in tokens else line)
    return app


def _version() -> str:
    from rollforward.cli.operations import version_text  # noqa: PLC0415 - only when it is asked for

    return version_text()


def _ordered(tokens: Sequence[str]) -> list[str]:
    """The tokens with the options that stand before the command moved behind it."""
    start = 0
    while start < len(tokens) and tokens[start].partition("=")[0] in _EVERYWHERE:
        start += 1 if "=" in tokens[start] else 2
    leading, rest = list(tokens[:start]), list(tokens[start:])
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def _usage(error: CycloptsError) -> int:
    path = " ".join(("rollforward", *(error.command_chain or ())))
    say(f"{error}".strip().rstrip("., ") + f" (see {path} --help)")
    return 2


def _close() -> None:
    # A command that never connected has no gRPC loaded, and shall not load it now.
    if "rollforward.connection" in sys.modules:
        sys.modules["rollforward.connection"].close()


def _drop_output() -> None:
    # Whoever read the output has seen enough; at exit Python would complain about what is still in the buffer.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
