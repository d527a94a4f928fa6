"""The start and resumption of runs, also while the service is unreachable."""

from __future__ import annotations

import copyreg
import logging
import os
import uuid
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward._journal import records
from rollforward._journal.directory import Head
from rollforward._journal.records import Start
from rollforward._journal.segment_writer import DISK_BYTES
from rollforward._journal.start_run_call import start_run as send_start
from rollforward._journal.sync import count_waiting
from rollforward._journal.writer import Writer
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward._validation import checked_description, checked_name, checked_run_tags
from rollforward.errors import InvalidRequest, NotFound, RollforwardError, Unavailable
from rollforward.references import run_id_of
from rollforward.tracking.live_run.run import Run, current_run, now
from rollforward.tracking.live_run.run_records import checked_size
from rollforward.tracking.live_run.source import source
from rollforward.tracking.live_run.system_metrics import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rollforward.references import RunLike

# How long a job waits for an unreachable service before it continues without it, in seconds.
_START_TIMEOUT: Final = 5.0

_refusing_addresses: Final[set[str]] = set()

_logger: Final = logging.getLogger("rollforward")


class RunStarter(Resource):
    """Live runs: start and resume them."""

    def start(
        self,
        experiment: str,
        *,
        name: str = "",
        tags: Mapping[str, object] | None = None,
        run_id: str | None = None,
        resume: bool = False,
        description: str = "",
        parent: RunLike | None = None,
        nested: bool = False,
        heartbeat: bool = True,
        system_metrics: bool | None = None,
        offline: bool | None = None,
    ) -> Run:
        """Start a run in an experiment, which is created if it is missing.

        While the service is unreachable, the run logs to its journal, with a warning, and a background thread keeps
        retrying.

        Args:
            experiment: The experiment's name.
            name: The run's name; derived from its id by default.
            tags: Tags of the run.
            run_id: The run's id, 32 lower-case hex digits; random by default.
            resume: Whether to resume the run with `run_id` if it exists.
            description: The run's description.
            parent: The parent run.
            nested: Whether the run whose block this is in is the parent.
            heartbeat: Whether the service marks the run as lost when this process dies.
            system_metrics: Whether to measure the machine every ten seconds; default ROLLFORWARD_SYSTEM_METRICS.
            offline: Whether to send nothing until `rollforward sync`; default as the parent, else ROLLFORWARD_OFFLINE.

        Raises:
            InvalidRequest: INVALID_NAME, INVALID_RUN_ID, INVALID_KEY, INVALID_VALUE, INVALID_DESCRIPTION,
                INVALID_ARGUMENTS, INVALID_SETTING, MESSAGE_TOO_LARGE, NOT_INSTALLED.
            AlreadyExists: RUN_EXISTS.
            NotFound: RUN_NOT_FOUND for the parent.
            PreconditionFailed: EXPERIMENT_DELETED.
            OSError: `offline`, and there can be no journal.
        """
        if resume and run_id is None:
            raise InvalidRequest("INVALID_ARGUMENTS", "resume=True requires a run_id: pass the id of the run to resume")
        chosen, whole = run_id or uuid.uuid4().hex, _parent(parent, nested=nested)
        if offline is None and isinstance(whole, Run) and whole.offline:
            offline = True
        settings = _settings(offline, system_metrics)
        request = v1.StartRunRequest(
            run_id=_checked_run_id(chosen),
            name=checked_name(name, "run name") if name else f"run-{chosen[:8]}",
            start_time=now(),
            tags=checked_run_tags(tags),
            description=checked_description(description),
            parent_run_id=_checked_run_id(run_id_of(whole)) if whole else "",
            source=source(),
            heartbeat=heartbeat and not settings.offline,
            request_id=new_request_id(),
        )
        start = Start(checked_name(experiment, "experiment name"), resume, request)
        payload = checked_size(records.start(experiment, request, resume=resume))
        experiment_id = (
            None if settings.offline else _try_start(self._connection, start, known_parent=isinstance(whole, Run))
        )
        head = Head(chosen, self._connection.address, self._connection.actor, heartbeat=request.heartbeat)
        return Run(
            _writer(self._connection, head, settings),
            self._connection,
            chosen,
            experiment_id=experiment_id or "",
            name=request.name,
            begin=None if experiment_id else payload,
            heartbeat=request.heartbeat,
            machine=settings.machine,
        )

    def resume(
        self,
        run: RunLike,
        *,
        worker: bool = False,
        heartbeat: bool = True,
        system_metrics: bool | None = None,
        offline: bool | None = None,
    ) -> Run:
        """Resume a run: it is RUNNING again after it ended, was lost or was only scheduled.

        Several processes, on one or many machines, may write to one run: each resumes it as a `worker`, whose finish()
        delivers the records and leaves the run open. See start_run for the other arguments.

        Raises:
            InvalidRequest: INVALID_RUN_ID, INVALID_SETTING, NOT_INSTALLED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED.
            OSError: `offline`, and there can be no journal.
        """
        settings = _settings(offline, system_metrics)
        return _resume(self._connection, _checked_run_id(run_id_of(run)), settings, worker=worker, heartbeat=heartbeat)


def _open_unpickled(run_id: str, address: str, actor: str, timeout: float, offline: bool) -> Run:
    """Open, as a worker, a run that another process pickled."""
    connection = Connection(address, actor=actor, timeout=timeout)
    # The process that started the run measures the machine.
    return _resume(connection, run_id, _settings(offline, False), worker=True, heartbeat=True, known=True)


def _reduce_run(run: Run) -> tuple[Callable[[str, str, str, float, bool], Run], tuple[str, str, str, float, bool]]:
    connection = run.connection
    return _open_unpickled, (run.run_id, connection.address, connection.actor, connection.timeout, run.offline)


# Registered here because Run cannot import this module, and every run is opened by this module.
copyreg.pickle(Run, _reduce_run)


def _resume(
    connection: Connection, run_id: str, settings: _Settings, *, worker: bool, heartbeat: bool, known: bool = False
) -> Run:
    request = v1.ResumeRunRequest(run_id=run_id, request_id=new_request_id())
    stored = None if settings.offline else _try_resume(connection, request, known=known)
    beats = heartbeat and not settings.offline
    head = Head(run_id, connection.address, connection.actor, worker=worker, heartbeat=beats)
    return Run(
        _writer(connection, head, settings),
        connection,
        run_id,
        experiment_id=stored.experiment_id if stored else "",
        name=stored.name if stored else "",
        params=stored.params if stored else None,
        begin=None if stored else records.call("ResumeRun", request),
        worker=worker,
        heartbeat=beats,
        machine=settings.machine,
    )


class _Settings(NamedTuple):
    offline: bool
    machine: Machine | None
    disk_bytes: int


def _settings(offline: bool | None, system_metrics: bool | None) -> _Settings:
    # Validate all settings before any side effect.
    measured = _switch("ROLLFORWARD_SYSTEM_METRICS", system_metrics)
    return _Settings(_switch("ROLLFORWARD_OFFLINE", offline), Machine() if measured else None, _disk_bytes())


def _try_start(connection: Connection, start: Start, *, known_parent: bool) -> str | None:
    try:
        return send_start(connection, start, timeout=min(_START_TIMEOUT, connection.timeout), connect_timeout=0)
    except (Unavailable, NotFound) as error:
        _raise_if_permanent(error, known=known_parent)
        _warn(connection, "start", start.request.run_id, error)
        return None


def _try_resume(connection: Connection, request: v1.ResumeRunRequest, *, known: bool) -> v1.Run | None:
    timeout = min(_START_TIMEOUT, connection.timeout)
    query = v1.GetRunRequest(run_id=request.run_id, without_metrics=True)
    try:
        connection.call(connection.tracking.ResumeRun, request, timeout=timeout, connect_timeout=0)
        return connection.call(connection.tracking.GetRun, query, timeout=timeout).run
    except (Unavailable, NotFound) as error:
        _raise_if_permanent(error, known=known)
        _warn(connection, "resume", request.run_id, error)
        return None


def _warn(connection: Connection, call: str, run_id: str, error: RollforwardError) -> None:
    """Warn that a run continues without the service; if nothing listens there, only once for all runs."""
    level = logging.INFO if connection.refused and connection.address in _refusing_addresses else logging.WARNING
    if connection.refused:
        _refusing_addresses.add(connection.address)
    _logger.log(level, "continuing without the service, run=%s, call=%s, error=%s", run_id, call, error)


def _raise_if_permanent(error: RollforwardError, *, known: bool) -> None:
    # The start of a known run may still be in its own journal.
    if isinstance(error, NotFound) and not (known and error.reason == "RUN_NOT_FOUND"):
        raise error


def _writer(connection: Connection, head: Head, settings: _Settings) -> Writer:
    _log_waiting_journals()
    return Writer(connection, head, offline=settings.offline, disk_bytes=settings.disk_bytes)


@cache
def _log_waiting_journals() -> None:
    """Warn once about undelivered journals of earlier jobs."""
    count = count_waiting()
    if count:
        _logger.warning("undelivered journals of earlier jobs, count=%d: run `rollforward sync`", count)


def _parent(parent: RunLike | None, *, nested: bool) -> RunLike | None:
    if parent is not None or not nested:
        return parent
    enclosing = current_run()
    if enclosing is None:
        raise InvalidRequest("INVALID_ARGUMENTS", "nested=True outside of a run: start it in the block of another run")
    return enclosing


def _checked_run_id(run_id: str) -> str:
    if len(run_id) != 32 or not set(run_id) <= set("0123456789abcdef"):
        message = f"invalid run id {repr(run_id)[:80]}: expected 32 lower-case hex digits"
        raise InvalidRequest("INVALID_RUN_ID", message)
    return run_id


def _switch(variable: str, argument: bool | None) -> bool:
    if argument is not None:
        return argument
    text = os.environ.get(variable, "0").strip().lower()
    if text not in {"", "0", "1", "false", "true"}:
        raise InvalidRequest("INVALID_SETTING", f"invalid {variable} {text!r}: expected 0 or 1", {"setting": variable})
    return text in {"1", "true"}


def _disk_bytes() -> int:
    text = os.environ.get("ROLLFORWARD_JOURNAL_BYTES")
    if not text:
        return DISK_BYTES
    if not text.isdecimal() or int(text) < 1:
        message = f"invalid ROLLFORWARD_JOURNAL_BYTES {text!r}: expected a number of bytes >= 1"
        raise InvalidRequest("INVALID_SETTING", message)
    return int(text)


start_run = default_client_function("start_run", RunStarter, RunStarter.start)
resume_run = default_client_function("resume_run", RunStarter, RunStarter.resume)
