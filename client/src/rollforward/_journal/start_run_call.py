"""Starts a run at the service: now, or whenever its journal is delivered."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.backoff import Backoff
from rollforward._transport.connection import CONNECT_SECONDS
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound

if TYPE_CHECKING:
    from rollforward._journal.records import Start
    from rollforward._transport.connection import Connection


def begin(
    link: Connection, start: Start, *, timeout: float | None = None, connect_timeout: float = CONNECT_SECONDS
) -> str:
    """Start the run, in an experiment that is created when it is missing, and return the experiment's id.

    Done again, it changes nothing. If nothing has ever answered at the address, try to connect for `connect_timeout`
    seconds only.

    Raises InvalidRequest, AlreadyExists (RUN_EXISTS) unless it may be resumed, NotFound, Unavailable.
    """
    request = v1.StartRunRequest()
    request.CopyFrom(start.request)
    request.experiment_id = experiment_id(
        link, start.experiment, _derived(request, "experiment"), timeout=timeout, connect_timeout=connect_timeout
    )
    try:
        link.call(link.tracking.StartRun, request, timeout=timeout)
    except AlreadyExists:
        if not start.resume:
            raise
        resumption = v1.ResumeRunRequest(run_id=request.run_id, request_id=_derived(request, "resume"))
        link.call(link.tracking.ResumeRun, resumption, timeout=timeout)
    except InvalidRequest as error:
        # It was done before, when the experiment of that name was another one.
        if error.reason != "REQUEST_ID_REUSED":
            raise
    return request.experiment_id


def experiment_id(
    link: Connection,
    name: str,
    request_id: str,
    *,
    timeout: float | None = None,
    connect_timeout: float = CONNECT_SECONDS,
) -> str:
    """Return the id of the experiment with a name, which is created under `request_id` when it is missing.

    Raises:
        InvalidRequest: INVALID_NAME.
        Unavailable: No result within the timeout.
    """
    by_name = v1.GetExperimentRequest(name=name)
    try:
        found = link.call(link.tracking.GetExperiment, by_name, timeout=timeout, connect_timeout=connect_timeout)
    except NotFound:
        pass
    else:
        return found.experiment.experiment_id
    creation = v1.CreateExperimentRequest(name=name, request_id=request_id)
    try:
        return link.call(link.tracking.CreateExperiment, creation, timeout=timeout).experiment_id
    except AlreadyExists:
        # Another job was first, by so little that the reads may not show it yet.
        return _await_experiment(link, by_name, timeout)


def _derived(request: v1.StartRunRequest, purpose: str) -> str:
    return hashlib.sha256(f"{request.request_id}/{purpose}".encode()).hexdigest()[:32]


def _await_experiment(link: Connection, by_name: v1.GetExperimentRequest, timeout: float | None) -> str:
    backoff = Backoff(link.timeout if timeout is None else timeout)
    while True:
        try:
            return link.call(link.tracking.GetExperiment, by_name, timeout=timeout).experiment.experiment_id
        except NotFound:
            if not backoff.pause():
                raise
