"""The command line, `rollforward`."""

import sys


def main() -> int:
    """Run the command in the process's arguments, and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    try:
        from rollforward.cli.app import run  # noqa: PLC0415 - the extra `cli` may be missing
    except ModuleNotFoundError as error:
        if error.name not in {"cyclopts", "rich"}:
            raise
        print("rollforward: the command line is not installed: pip install 'rollforward[cli]'", file=sys.stderr)
        return 2
    return run(sys.argv[1:])
