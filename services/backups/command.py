"""The commands that take and restore a backup."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from eventstore import Rejected, StoreUnavailable, UnsafeStore
from services.failures import report
from services.nats.data_directory import DataDirectoryError
from services.nats.server import NatsServerError
from services.settings import Settings, from_environment

_REFUSALS = (Rejected, StoreUnavailable, UnsafeStore, DataDirectoryError, NatsServerError, OSError)

Data = Annotated[Path | None, Parameter(metavar="DIR", help="Data directory; default ./rollforward-data.")]
Nats = Annotated[str | None, Parameter(metavar="URL", help="An outside NATS server, instead of the built-in one.")]
Artifacts = Annotated[
    str | None, Parameter(metavar="URL", help="s3://bucket/prefix or a directory; default in the data directory.")
]
Output = Annotated[
    Literal["table", "json"],
    Parameter(name=("--output", "-o"), metavar="FORMAT", help="Lines of text, or one JSON document."),
]
Directory = Annotated[Path, Parameter(name="BACKUP", help="The directory of the backup.")]


def backup(
    directory: Directory,
    /,
    *,
    data: Data = None,
    nats: Nats = None,
    artifacts: Artifacts = None,
    output: Output = "table",
) -> int:
    """Back up all logs, the artifacts and the key of webhooks into a directory, while the services run.

    Everything acknowledged before it began is in it. A backup into the directory of an earlier one copies only
    artifacts that are new and logs that have grown. ROLLFORWARD_* variables set what no option does.

    Examples:

        rollforward backup /backups/rollforward --data rollforward-data
        rollforward backup backup --nats nats://localhost:4222 --artifacts s3://bucket/prefix -o json
    """
    from services.backups.take import take_backup  # noqa: PLC0415 - `--help` shall not wait for gRPC

    async def take(settings: Settings) -> dict[str, Any]:
        manifest = await take_backup(settings, directory, _progress)
        return {
            "backup": str(directory),
            "created": manifest.created,
            "positions": {log: entry.position for log, entry in manifest.logs.items()},
            "artifacts": len(manifest.artifacts),
            "webhook_key": bool(manifest.webhook_key),
        }

    return _run(take, data, nats, artifacts, output)


def restore(
    directory: Directory,
    /,
    *,
    data: Data = None,
    nats: Nats = None,
    artifacts: Artifacts = None,
    output: Output = "table",
) -> int:
    """Restore a backup where nothing is yet, and begin a new epoch in every log.

    The backup is verified first, and nothing is ever overwritten. Start the services afterwards: rows are those of
    snapshots in the backup, or computed again. An outside NATS server is started again first.

    Examples:

        rollforward restore /backups/rollforward --data restored
        rollforward restore backup --nats nats://localhost:4222 --artifacts s3://bucket/prefix
    """
    from services.backups.restore import restore_backup  # noqa: PLC0415

    async def bring_back(settings: Settings) -> dict[str, Any]:
        restored = await restore_backup(settings, directory, _progress)
        if restored.restart:
            _progress("restart the NATS server before you start the services: it does not know its duplicates yet")
        return {
            "backup": str(directory),
            "created": restored.manifest.created,
            "positions": {log: entry.position for log, entry in restored.manifest.logs.items()},
            "epochs": restored.epochs,
            "artifacts": len(restored.manifest.artifacts),
            "restart_nats": restored.restart,
        }

    return _run(bring_back, data, nats, artifacts, output)


def _run(
    job: Callable[[Settings], Coroutine[Any, Any, dict[str, Any]]],
    data: Path | None,
    nats: str | None,
    artifacts: str | None,
    output: str,
) -> int:
    os.umask(0o077)
    given = {"data": data, "nats": nats, "artifacts": artifacts}
    try:
        settings = from_environment(os.environ)
        settings = replace(settings, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        done = asyncio.run(job(settings))
    except _REFUSALS as error:
        report(error)
        return 1
    if output == "json":
        print(json.dumps(done, indent=2))
    else:
        positions = ", ".join(f"{log} {position}" for log, position in done["positions"].items())
        print(f"done: {done['backup']} of {done['created']}; positions: {positions}; {done['artifacts']} objects")
    return 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
