"""The `version` command, which loads no other modules."""

from __future__ import annotations

import json
from importlib.metadata import version as installed

from rollforward.cli.options import DEFAULTS, Options


def version(*, options: Options = DEFAULTS) -> None:
    """Print the version of this client.

    Examples:

        rollforward version
        rollforward version -o json
    """
    if options.json:
        print(json.dumps({"version": installed("rollforward")}, indent=2))
    else:
        print(version_text())


def version_text() -> str:
    """Return the name and version of this client."""
    return f"rollforward {installed('rollforward')}"
