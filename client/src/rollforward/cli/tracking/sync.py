"""The command that delivers what jobs left behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import rollforward as rf
from rollforward._printable import printable
from rollforward.cli.options import DELIVERING, Delivering, flag
from rollforward.cli.output.failures import REFUSED, UsageError
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import document, grid, print_json_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType


def sync(
    directory: Annotated[
        Path | None,
        Parameter(name="DIR", help="The journals' directory; default ROLLFORWARD_JOURNAL, else this user's."),
    ] = None,
    /,
    *,
    watch: Annotated[bool, flag("Repeat until Ctrl-C.")] = False,
    every: Annotated[
        float, Parameter(metavar="SECONDS", help="With --watch: the pause between two deliveries.")
    ] = 10.0,
    options: Delivering = DELIVERING,
) -> int:
    """Deliver what runs logged offline, during an outage, or before their job died.

    Each journal goes to the service that its job meant, or to --server, in the name of who logged it. Exit code 0:
    nothing is left but what living jobs deliver themselves. 1: something could not be delivered, or was refused.

    Examples:

        rollforward sync
        rollforward sync --watch --every 60
        rollforward sync /scratch/journals -o json
    """
    if not 0 < every <= threading.TIMEOUT_MAX:
        raise UsageError(f"--every must be > 0, got {every:g}")
    if watch:
        return _watch(directory, every, options)
    found = _sync(directory, options)
    options.show([_plain(one) for one in found], lambda: _table(found))
    return REFUSED if any(_failed(one) for one in found) else 0


def _watch(directory: Path | None, every: float, options: Delivering) -> int:
    try:
        while True:
            for one in _sync(directory, options):
                _say(one, options)
            time.sleep(every)
    except KeyboardInterrupt:
        # Ctrl-C is the way to end a watch.
        return 0


def _sync(directory: Path | None, options: Delivering) -> list[rf.Synced]:
    with bar("sync", in_bytes=True) as advance:
        return rf.sync(directory, address=options.server, timeout=options.timeout, progress=advance)


def _failed(one: rf.Synced) -> bool:
    return one.state == "undelivered" or one.refused.total > 0


def _plain(one: rf.Synced) -> dict[str, Any]:
    return {**document(one), "folder": str(one.folder)}


def _say(one: rf.Synced, options: Delivering) -> None:
    if options.json:
        print_json_line(_plain(one))
    elif one.state != "alive" or one.delivered.total:
        print(printable(" ".join(_row(one)).rstrip()), flush=True)


def _row(one: rf.Synced) -> tuple[str, ...]:
    return (
        one.run_id,
        one.state,
        str(one.delivered.points),
        str(one.refused.total),
        str(one.waiting_bytes),
        one.reason,
    )


def _table(found: Sequence[rf.Synced]) -> RenderableType:
    headers = ("RUN", "STATE", "POINTS>", "REFUSED>", "WAITING BYTES>", "REASON")
    return grid(headers, map(_row, found), empty="nothing to deliver")
