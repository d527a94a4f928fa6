"""The command line: `rollforward`, a client like any other."""

import sys


def main() -> int:
    """Run the command that the process's arguments name, and return its exit code: 0 done, 1 refused, 2 usage."""
    try:
        from rollforward.cli.app import run  # noqa: PLC0415 - the extra `cli` may be missing
    except ModuleNotFoundError as error:
        if error.name not in {"cyclopts", "rich"}:
            raise
        print("rollforward: the command line is an extra: pip install 'rollforward[cli]'", file=sys.stderr)
        return 2
    return run(sys.argv[1:])
