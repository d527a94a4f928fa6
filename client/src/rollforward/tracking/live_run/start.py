"""Start and resume runs, with the service or, when it is unreachable, without it."""

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
from rollforward._journal.start_run_call import begin
from rollforward._journal.sync import waiting
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

# How long a job waits for a service that is unreachable before it continues without it, in seconds.
_START_TIMEOUT: Final = 5.0

_refusing: Final[set[str]] = set()

_log: Final = logging.getLogger("rollforward")


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
        """Start a run in an experiment, which is created when it is missing.

        Without a name the run is called after its id. With `resume` a run of that `run_id` which exists is resumed.
        `parent` is the run that this one is a part of, with `nested` the one whose block this is. With `heartbeat` the
        service notices when the job dies. With `system_metrics` (else ROLLFORWARD_SYSTEM_METRICS) the machine is
        measured every ten seconds. An `offline` run (else ROLLFORWARD_OFFLINE; or a part of one) sends nothing:
        `rollforward sync` does later. A service out of reach makes it go on likewise, with a warning, and it is tried
        again in the background.

        Raises:
            InvalidRequest: INVALID_NAME, INVALID_RUN_ID, INVALID_KEY, INVALID_VALUE, INVALID_DESCRIPTION,
                INVALID_ARGUMENTS, INVALID_SETTING, MESSAGE_TOO_LARGE, NOT_INSTALLED.
            AlreadyExists: RUN_EXISTS.
            NotFound: RUN_NOT_FOUND: the parent.
            PreconditionFailed: EXPERIMENT_DELETED.
            OSError: When there can be no journal of an `offline` run.
        """
        if resume and run_id is None:
            raise InvalidRequest("INVALID_ARGUMENTS", "to resume a run takes its run_id")
        chosen, whole = run_id or uuid.uuid4().hex, _parent(parent, nested=nested)
        if offline is None and isinstance(whole, Run) and whole.offline:
            offline = True
        settings = _settings(offline, system_metrics)
        request = v1.StartRunRequest(
            run_id=_checked_run_id(chosen),
            name=checked_name(name, "a run's name") if name else f"run-{chosen[:8]}",
            start_time=now(),
            tags=checked_run_tags(tags),
            description=checked_description(description),
            parent_run_id=_checked_run_id(run_id_of(whole)) if whole else "",
            source=source(),
            heartbeat=heartbeat and not settings.offline,
            request_id=new_request_id(),
        )
        start = Start(checked_name(experiment, "an experiment's name"), resume, request)
        payload = checked_size(records.start(experiment, request, resume=resume))
        experiment_id = (
            None if settings.offline else _try_to_begin(self._connection, start, known_parent=isinstance(whole, Run))
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
        """Resume a run: one that ended, was lost or was only scheduled is RUNNING again.

        Several processes may write one run, on one machine or on many: each resumes it as a `worker`, whose finish()
        delivers and lets the run go on. The other arguments are start_run's.

        Raises:
            InvalidRequest: INVALID_RUN_ID, INVALID_SETTING, NOT_INSTALLED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED.
            OSError: When there can be no journal of an `offline` run.
        """
        settings = _settings(offline, system_metrics)
        return _resume(self._connection, _checked_run_id(run_id_of(run)), settings, worker=worker, heartbeat=heartbeat)


def _rejoin(run_id: str, address: str, actor: str, timeout: float, offline: bool) -> Run:
    """Open, as a worker, a run that another process has pickled."""
    connection = Connection(address, actor=actor, timeout=timeout)
    # The other process measures this machine, if its run does.
    return _resume(connection, run_id, _settings(offline, False), worker=True, heartbeat=True, known=True)


def _reduce_run(run: Run) -> tuple[Callable[[str, str, str, float, bool], Run], tuple[str, str, str, float, bool]]:
    connection = run.connection
    return _rejoin, (run.run_id, connection.address, connection.actor, connection.timeout, run.offline)


# Here and not in Run, which this module imports. Every run is opened by this module, so it is registered by then.
copyreg.pickle(Run, _reduce_run)


def _resume(
    connection: Connection, run_id: str, settings: _Settings, *, worker: bool, heartbeat: bool, known: bool = False
) -> Run:
    request = v1.ResumeRunRequest(run_id=run_id, request_id=new_request_id())
    found = None if settings.offline else _try_to_resume(connection, request, known=known)
    beats = heartbeat and not settings.offline
    head = Head(run_id, connection.address, connection.actor, worker=worker, heartbeat=beats)
    return Run(
        _writer(connection, head, settings),
        connection,
        run_id,
        experiment_id=found.experiment_id if found else "",
        name=found.name if found else "",
        params=found.params if found else None,
        begin=None if found else records.call("ResumeRun", request),
        worker=worker,
        heartbeat=beats,
        machine=settings.machine,
    )


class _Settings(NamedTuple):
    offline: bool
    machine: Machine | None
    disk_bytes: int


def _settings(offline: bool | None, system_metrics: bool | None) -> _Settings:
    # All of them before anything is done.
    measured = _switch("ROLLFORWARD_SYSTEM_METRICS", system_metrics)
    return _Settings(_switch("ROLLFORWARD_OFFLINE", offline), Machine() if measured else None, _disk_bytes())


def _try_to_begin(connection: Connection, start: Start, *, known_parent: bool) -> str | None:
    try:
        return begin(connection, start, timeout=min(_START_TIMEOUT, connection.timeout), connect_timeout=0)
    except (Unavailable, NotFound) as error:
        _raise_unless_it_may_pass(error, known=known_parent)
        _warn(connection, f"run {start.request.run_id} starts without the service", error)
        return None


def _try_to_resume(connection: Connection, request: v1.ResumeRunRequest, *, known: bool) -> v1.Run | None:
    patience = min(_START_TIMEOUT, connection.timeout)
    known_as = v1.GetRunRequest(run_id=request.run_id, without_metrics=True)
    try:
        connection.call(connection.tracking.ResumeRun, request, timeout=patience, connect_timeout=0)
        return connection.call(connection.tracking.GetRun, known_as, timeout=patience).run
    except (Unavailable, NotFound) as error:
        _raise_unless_it_may_pass(error, known=known)
        _warn(connection, f"run {request.run_id} continues without the service", error)
        return None


def _warn(connection: Connection, fact: str, error: RollforwardError) -> None:
    """Warn once of a service to which nothing connects, for all runs of this process."""
    level = logging.INFO if connection.refused and connection.address in _refusing else logging.WARNING
    if connection.refused:
        _refusing.add(connection.address)
    _log.log(level, "%s: %s", fact, error)


def _raise_unless_it_may_pass(error: RollforwardError, *, known: bool) -> None:
    # Of a run that is known to be there, the start may still wait in its own journal.
    if isinstance(error, NotFound) and not (known and error.reason == "RUN_NOT_FOUND"):
        raise error


def _writer(connection: Connection, head: Head, settings: _Settings) -> Writer:
    _hint()
    return Writer(connection, head, offline=settings.offline, disk_bytes=settings.disk_bytes)


@cache
def _hint() -> None:
    """Say once what earlier jobs left behind."""
    left = waiting()
    if left:
        _log.warning("journals of earlier jobs wait to be delivered, %d of them: `rollforward sync` does it", left)


def _parent(parent: RunLike | None, *, nested: bool) -> RunLike | None:
    if parent is not None or not nested:
        return parent
    around = current_run()
    if around is None:
        raise InvalidRequest("INVALID_ARGUMENTS", "a nested run starts in the block of another one")
    return around


def _checked_run_id(run_id: str) -> str:
    if len(run_id) != 32 or not set(run_id) <= set("0123456789abcdef"):
        raise InvalidRequest("INVALID_RUN_ID", f"a run's id has 32 lower-case hex digits, not {repr(run_id)[:80]}")
    return run_id


def _switch(variable: str, chosen: bool | None) -> bool:
    if chosen is not None:
        return chosen
    text = os.environ.get(variable, "0").strip().lower()
    if text not in {"", "0", "1", "false", "true"}:
        raise InvalidRequest("INVALID_SETTING", f"{variable} is 0 or 1, not {text!r}", {"setting": variable})
    return text in {"1", "true"}


def _disk_bytes() -> int:
    text = os.environ.get("ROLLFORWARD_JOURNAL_BYTES")
    if not text:
        return DISK_BYTES
    if not text.isdecimal() or int(text) < 1:
        raise InvalidRequest("INVALID_SETTING", "ROLLFORWARD_JOURNAL_BYTES is a number of bytes")
    return int(text)


start_run = default_client_function("start_run", RunStarter, RunStarter.start)
resume_run = default_client_function("resume_run", RunStarter, RunStarter.resume)
