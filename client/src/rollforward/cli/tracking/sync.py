"""The `sync` command."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import rollforward as rf
from rollforward._printable import printable
from rollforward.cli.options import SYNC_DEFAULTS, SyncOptions, flag
from rollforward.cli.output.failures import EXIT_FAILURE, UsageError
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import document, grid, print_json_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType


def sync(
    directory: Annotated[
        Path | None,
        Parameter(name="DIR", help="The directory of journals; default ROLLFORWARD_JOURNAL, else the user's."),
    ] = None,
    /,
    *,
    watch: Annotated[bool, flag("Repeat until Ctrl-C.")] = False,
    every: Annotated[
        float, Parameter(metavar="SECONDS", help="With --watch: the pause between two deliveries.")
    ] = 10.0,
    options: SyncOptions = SYNC_DEFAULTS,
) -> int:
    """Deliver the records that runs logged offline, during an outage, or before their job died.

    Each journal goes to the address that its job used, or to --server, in the name of the job's actor. Exit code 0:
    all is delivered, except what live jobs deliver themselves. 1: a record was not delivered, or was rejected.

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
    return EXIT_FAILURE if any(_failed(one) for one in found) else 0


def _watch(directory: Path | None, every: float, options: SyncOptions) -> int:
    try:
        while True:
            for one in _sync(directory, options):
                _print_result(one, options)
            time.sleep(every)
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of a watch.
        return 0


def _sync(directory: Path | None, options: SyncOptions) -> list[rf.Synced]:
    with bar("sync", in_bytes=True) as advance:
        return rf.sync(directory, address=options.server, timeout=options.timeout, progress=advance)


def _failed(one: rf.Synced) -> bool:
    return one.state == "undelivered" or one.refused.total > 0


def _plain(one: rf.Synced) -> dict[str, Any]:
    return {**document(one), "folder": str(one.folder)}


def _print_result(one: rf.Synced, options: SyncOptions) -> None:
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
    headers = ("RUN", "STATE", "POINTS>", "EXIT_FAILURE>", "WAITING BYTES>", "REASON")
    return grid(headers, map(_row, found), empty="nothing to deliver")
