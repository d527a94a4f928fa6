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
    results = _sync(directory, options)
    options.show([_plain(result) for result in results], lambda: _table(results))
    return EXIT_FAILURE if any(_failed(result) for result in results) else 0


def _watch(directory: Path | None, every: float, options: SyncOptions) -> int:
    try:
        while True:
            for result in _sync(directory, options):
                _print_result(result, options)
            time.sleep(every)
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of a watch.
        return 0


def _sync(directory: Path | None, options: SyncOptions) -> list[rf.Synced]:
    with bar("sync", in_bytes=True) as advance:
        return rf.sync(directory, address=options.server, timeout=options.timeout, progress=advance)


def _failed(result: rf.Synced) -> bool:
    return result.state == "undelivered" or result.refused.total > 0


def _plain(result: rf.Synced) -> dict[str, Any]:
    return {**document(result), "folder": str(result.folder)}


def _print_result(result: rf.Synced, options: SyncOptions) -> None:
    if options.json:
        print_json_line(_plain(result))
    elif result.state != "alive" or result.delivered.total:
        print(printable(" ".join(_row(result)).rstrip()), flush=True)


def _row(result: rf.Synced) -> tuple[str, ...]:
    return (
        result.run_id,
        result.state,
        str(result.delivered.points),
        str(result.refused.total),
        str(result.waiting_bytes),
        result.reason,
    )


def _table(results: Sequence[rf.Synced]) -> RenderableType:
    headers = ("RUN", "STATE", "POINTS>", "EXIT_FAILURE>", "WAITING BYTES>", "REASON")
    return grid(headers, map(_row, results), empty="nothing to deliver")
