"""The results that clients received, the contents of the logs, and whether they agree."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from eventstore.event import RecordedEvent
from rollforward import Client, RollforwardError, Unavailable, new_request_id, v1
from services.app import LOGS
from services.nats.server import EmbeddedNats
from tests.servers.nats import open_log
from tests.timeouts import scaled

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Logs = Mapping[str, Sequence[RecordedEvent]]

ANSWER_SECONDS = scaled(60.0)

_LOG_OF = {
    v1.CreateExperimentRequest: "tracking",
    v1.StartRunRequest: "tracking",
    v1.LogBatchRequest: "tracking",
    v1.LogArtifactRequest: "tracking",
    v1.CreateModelRequest: "registry",
    v1.RegisterVersionRequest: "registry",
    v1.MoveAliasRequest: "registry",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a command: a response, or the reason of its rejection."""

    actor: str
    request: Any
    response: Any
    refusal: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the command across retries."""
        return self.actor, self.request.request_id

    @property
    def log(self) -> str:
        """Return the log that the command writes to."""
        return _LOG_OF[type(self.request)]


class History:
    """Every result that any client received; safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: list[Answer] = []

    def add(self, answer: Answer) -> None:
        """Record a result."""
        with self._lock:
            self._answers.append(answer)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def acknowledged(self) -> list[Answer]:
        """Return the commands that succeeded."""
        with self._lock:
            return [answer for answer in self._answers if not answer.refusal]

    @property
    def refused(self) -> list[Answer]:
        """Return the commands that were rejected."""
        with self._lock:
            return [answer for answer in self._answers if answer.refusal]


class RecordingClient:
    """A client that retries each command with one request id, and records the results."""

    def __init__(self, client: Client, history: History) -> None:
        self.sdk = client
        self._history = history

    def send(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Send a request with a new request id, and retry it until it is answered; return the response.

        Raises the error of a refusal, which is recorded too; Unavailable only after `ANSWER_SECONDS`.
        """
        setattr(request, "request_id", new_request_id())  # noqa: B010 - every command has one
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                response = self.sdk.connection.call(method, request, timeout=scaled(5.0))
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            except RollforwardError as error:
                self._history.add(Answer(self.sdk.actor, request, None, error.reason))
                raise
            else:
                self._history.add(Answer(self.sdk.actor, request, response))
                return response


def read_logs(data: Path) -> Logs:
    """Return all events of all logs, from the store of a stopped system."""
    return asyncio.run(_read_logs(data))


async def _read_logs(data: Path) -> Logs:
    async with EmbeddedNats(data / "nats") as nats:
        logs = {}
        for name, types in LOGS.items():
            async with open_log(nats.address, types, name) as store:
                found = [await store.event_at(position) for position in range(1, await store.head() + 1)]
                assert None not in found, f"the {name} log has a hole"
                logs[name] = [event for event in found if event is not None]
        return logs


def check_acknowledged(history: History, logs: Logs) -> None:
    """Check that each acknowledged command is in its log once, complete, at the returned position, as requested."""
    made = _by_request(logs)
    for answer in history.acknowledged:
        events = made[answer.log].get(answer.key, [])
        assert [type(event.data) for event in events] == _promised(answer.request), f"{answer} made {events}"
        positions = [event.position for event in events]
        last = answer.response.position
        assert positions == list(range(last - len(events) + 1, last + 1)), f"{answer} is at {positions}"
        for event in events:
            assert event.metadata.request_digest
            assert _agrees(answer, event), f"{answer} became {event}"


def check_nothing_else(history: History, logs: Logs, actors: frozenset[str]) -> None:
    """Check that the logs have no other events of these actors."""
    known = {answer.key for answer in history.acknowledged}
    for log, requests in _by_request(logs).items():
        strangers = {key for key in requests if key[0] in actors} - known
        assert not strangers, f"the {log} log holds {strangers}"


def _by_request(logs: Logs) -> Mapping[str, Mapping[tuple[str, str], list[RecordedEvent]]]:
    made: dict[str, dict[tuple[str, str], list[RecordedEvent]]] = {}
    for log, events in logs.items():
        made[log] = defaultdict(list)
        for event in events:
            made[log][event.metadata.actor, event.metadata.request_id].append(event)
    return made


def _promised(request: Message) -> list[type[Message]]:
    match request:
        case v1.LogBatchRequest():
            return [v1.RunLogged] * bool(request.params) + [v1.MetricsLogged] * bool(request.series)
        case _:
            return [_EVENT_OF[type(request)]]


_EVENT_OF: Mapping[type[Message], type[Message]] = {
    v1.CreateExperimentRequest: v1.ExperimentCreated,
    v1.StartRunRequest: v1.RunStarted,
    v1.LogArtifactRequest: v1.ArtifactLogged,
    v1.CreateModelRequest: v1.ModelCreated,
    v1.RegisterVersionRequest: v1.VersionRegistered,
    v1.MoveAliasRequest: v1.AliasMoved,
}


def _agrees(answer: Answer, event: RecordedEvent) -> bool:
    request, response, payload = answer.request, answer.response, event.data
    if isinstance(payload, v1.AliasMoved):
        alias = response.alias
        stands = (payload.to_version, payload.to_digest, event.position) == (
            alias.version,
            alias.digest,
            alias.revision,
        )
        return stands and response.moved and payload.to_version == request.version
    if isinstance(payload, v1.VersionRegistered) and payload.version != response.version.version:
        return False
    same = set(request.DESCRIPTOR.fields_by_name) & set(payload.DESCRIPTOR.fields_by_name)
    return bool(same) and all(getattr(request, name) == getattr(payload, name) for name in same)


def changes_in(logs: Logs, wanted: Callable[[v1.AliasMoved], bool] = lambda _: True) -> list[tuple[int, int]]:
    """Return the alias changes of the registry log as (revision, version), in order."""
    payloads = [(event.position, event.data) for event in logs["registry"]]
    return [
        (at, payload.to_version) for at, payload in payloads if isinstance(payload, v1.AliasMoved) and wanted(payload)
    ]
