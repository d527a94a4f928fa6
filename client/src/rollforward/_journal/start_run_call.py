"""The calls that start a run, directly or when its journal is delivered."""

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


def start_run(
    connection: Connection, start: Start, *, timeout: float | None = None, connect_timeout: float = CONNECT_SECONDS
) -> str:
    """Start the run, create its experiment if it is missing, and return the experiment's id.

    Repeating the call changes nothing. If nothing has ever answered at the address, try to connect for at most
    `connect_timeout` seconds.

    Raises:
        InvalidRequest: See the message.
        AlreadyExists: RUN_EXISTS, unless the run may be resumed.
        NotFound: See the message.
        Unavailable: No result within the timeout.
    """
    request = v1.StartRunRequest()
    request.CopyFrom(start.request)
    request.experiment_id = experiment_id(
        connection, start.experiment, _derived(request, "experiment"), timeout=timeout, connect_timeout=connect_timeout
    )
    try:
        connection.call(connection.tracking.StartRun, request, timeout=timeout)
    except AlreadyExists:
        if not start.resume:
            raise
        resumption = v1.ResumeRunRequest(run_id=request.run_id, request_id=_derived(request, "resume"))
        connection.call(connection.tracking.ResumeRun, resumption, timeout=timeout)
    except InvalidRequest as error:
        # An earlier attempt started it, when the experiment of that name was another one.
        if error.reason != "REQUEST_ID_REUSED":
            raise
    return request.experiment_id


def experiment_id(
    connection: Connection,
    name: str,
    request_id: str,
    *,
    timeout: float | None = None,
    connect_timeout: float = CONNECT_SECONDS,
) -> str:
    """Return the id of the experiment with a name, which is created with `request_id` if it is missing.

    Raises:
        InvalidRequest: INVALID_NAME.
        Unavailable: No result within the timeout.
    """
    by_name = v1.GetExperimentRequest(name=name)
    try:
        response = connection.call(
            connection.tracking.GetExperiment, by_name, timeout=timeout, connect_timeout=connect_timeout
        )
    except NotFound:
        pass
    else:
        return response.experiment.experiment_id
    creation = v1.CreateExperimentRequest(name=name, request_id=request_id)
    try:
        return connection.call(connection.tracking.CreateExperiment, creation, timeout=timeout).experiment_id
    except AlreadyExists:
        # Another job has just created it, and reads may not show it yet.
        return _await_experiment(connection, by_name, timeout)


def _derived(request: v1.StartRunRequest, purpose: str) -> str:
    return hashlib.sha256(f"{request.request_id}/{purpose}".encode()).hexdigest()[:32]


def _await_experiment(connection: Connection, by_name: v1.GetExperimentRequest, timeout: float | None) -> str:
    backoff = Backoff(connection.timeout if timeout is None else timeout)
    while True:
        try:
            return connection.call(connection.tracking.GetExperiment, by_name, timeout=timeout).experiment.experiment_id
        except NotFound:
            if not backoff.pause():
                raise
