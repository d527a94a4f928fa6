"""The demo: the whole lifecycle on real data, with real processes, in one or two minutes."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def command(
    *,
    data: Annotated[
        Path | None,
        Parameter(
            metavar="DIR", help="Keep everything in this directory; default a temporary one, removed at the end."
        ),
    ] = None,
) -> int:
    """Run the whole lifecycle on a real data set: train, gate, register, serve, move, roll back and audit.

    Starts the whole system on free ports, explains each step, checks it, and leaves nothing running. Takes one or two
    minutes on two cores.

    Examples:

        rollforward demo
        rollforward demo --data demo-data
    """
    if missing := [name for name in ("sklearn", "skops") if find_spec(name) is None]:
        print(
            f"rollforward: the demo needs {' and '.join(missing)}: pip install 'rollforward-server[sklearn]'",
            file=sys.stderr,
        )
        return 2
    from services.demo.runner import play  # noqa: PLC0415 - `--help` shall not wait for gRPC and numpy

    return play(data)
