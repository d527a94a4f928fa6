"""The rules of an endpoint's stream: its settings and its cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never
from urllib.parse import urlsplit

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore import FIRST_EPOCH, Decider, Kind, RecordedEvent, Rejected, on_wire
from rollforward import v1
from services.timestamps import nanoseconds, timestamp
from services.validation import check_prose, check_text
from services.webhooks import webhook_stream
from services.webhooks.events import webhook_event

OVERLAP_SECONDS = 24 * 3600
MAX_OVERLAP_SECONDS = 30 * 24 * 3600
ALL_CHANGES = (v1.WEBHOOK_CHANGE_KIND_MOVED, v1.WEBHOOK_CHANGE_KIND_REMOVED)


@dataclass(frozen=True, slots=True)
class State:
    """The state of an endpoint, for decisions and for delivery.

    Attributes:
        exists: Whether it was created and not deleted.
        settings: Its URL and which changes it receives.
        rotation: The number of the secret that signs.
        previous_valid_until: Until when the previous secret signs too, in nanoseconds since 1970.
        cursor: The position of the registry log up to which it received changes.
        cursor_event: The id of the event there if it was delivered; else empty.
        epoch: The position of the event that last set the cursor, other than a delivery.
        log_epoch: The epoch of the registry log that the cursor is in.
        parked: Whether it is disabled.
    """

    exists: bool = False
    settings: v1.WebhookSettings = field(default_factory=v1.WebhookSettings)
    rotation: int = 0
    previous_valid_until: int = 0
    cursor: int = 0
    cursor_event: str = ""
    epoch: int = 0
    log_epoch: int = FIRST_EPOCH
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """A request to create an endpoint, with its new id and the revision that it starts after."""

    request: v1.CreateWebhookRequest
    webhook_id: str
    from_revision: int
    log_epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class Rotate:
    """A request to replace a secret, with the time of the request in nanoseconds since 1970."""

    request: v1.RotateWebhookSecretRequest
    now: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """A request to reject, unless the same request succeeded before."""

    rejection: Rejected


@dataclass(frozen=True, slots=True)
class Reported:
    """The result of delivery: delivered changes, or a failed one; ignored if the cursor was set since."""

    payload: v1.WebhookDelivered | v1.WebhookParked
    epoch: int


WebhookCommand: TypeAlias = (
    Reported
    | Create
    | Refuse
    | Rotate
    | v1.UpdateWebhookRequest
    | v1.DeleteWebhookRequest
    | v1.ResumeWebhookRequest
    | v1.ReplayWebhookRequest
)


def decide(command: object, state: State) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        TypeError: It is not a command of a webhook.
    """
    if not isinstance(command, WebhookCommand):
        raise TypeError(f"expected a command of a webhook, got {type(command).__name__}")
    return _decide(command, state)


def _decide(command: WebhookCommand, state: State) -> Sequence[Message]:  # noqa: C901, PLR0911 - a case each
    match command:
        case Reported():
            return _report(command, state)
        case Create():
            return _create(command)
        case Refuse():
            raise command.rejection
        case Rotate():
            return _rotate(command, state)
        case v1.UpdateWebhookRequest():
            return _update(command, state)
        case v1.DeleteWebhookRequest():
            _check_exists(command.webhook_id, state)
            return [v1.WebhookDeleted(webhook_id=command.webhook_id)]
        case v1.ResumeWebhookRequest():
            return _resume(command, state)
        case v1.ReplayWebhookRequest():
            return _replay(command, state)
        case _:
            assert_never(command)


def _create(command: Create) -> Sequence[Message]:
    request = command.request
    settings = v1.WebhookSettings(
        url=request.url,
        model=request.model or "*",
        alias=request.alias or "*",
        changes=sorted({*request.changes} or ALL_CHANGES),
        description=request.description,
    )
    _check(settings)
    return [
        v1.WebhookCreated(
            webhook_id=command.webhook_id,
            settings=settings,
            from_revision=command.from_revision,
            epoch=on_wire(command.log_epoch),
        )
    ]


def _update(command: v1.UpdateWebhookRequest, state: State) -> Sequence[Message]:
    _check_exists(command.webhook_id, state)
    settings = v1.WebhookSettings()
    settings.CopyFrom(state.settings)
    for name in ("url", "model", "alias", "description"):
        if command.HasField(name):
            setattr(settings, name, getattr(command, name))
    if command.changes:
        settings.changes[:] = sorted({*command.changes})
    _check(settings)
    if settings == state.settings:
        return []
    return [v1.WebhookChanged(webhook_id=command.webhook_id, from_settings=state.settings, to_settings=settings)]


def _rotate(command: Rotate, state: State) -> Sequence[Message]:
    request = command.request
    _check_exists(request.webhook_id, state)
    overlap = request.overlap_seconds if request.HasField("overlap_seconds") else OVERLAP_SECONDS
    if overlap > MAX_OVERLAP_SECONDS:
        message = f"invalid overlap_seconds {overlap}: expected at most {MAX_OVERLAP_SECONDS}"
        raise Rejected(Kind.INVALID, "INVALID_OVERLAP", message, overlap_seconds=str(overlap))
    until: Timestamp = timestamp(command.now + overlap * 1_000_000_000)
    rotation = state.rotation + 1
    return [v1.WebhookSecretRotated(webhook_id=request.webhook_id, rotation=rotation, previous_valid_until=until)]


def _resume(command: v1.ResumeWebhookRequest, state: State) -> Sequence[Message]:
    _check_exists(command.webhook_id, state)
    skips = command.HasField("skip_revision")
    if skips and command.skip_revision <= state.cursor:
        message = f"invalid skip_revision {command.skip_revision}: expected one after the cursor, {state.cursor}"
        raise Rejected(Kind.PRECONDITION, "SKIP_BEHIND", message, cursor=str(state.cursor))
    if not (skips or state.parked):
        return []
    after, epoch = (command.skip_revision, command.epoch) if skips else (state.cursor, on_wire(state.log_epoch))
    resumed = v1.WebhookResumed(
        webhook_id=command.webhook_id, from_revision=state.cursor, to_revision=after, epoch=epoch
    )
    return [resumed]


def _replay(command: v1.ReplayWebhookRequest, state: State) -> Sequence[Message]:
    _check_exists(command.webhook_id, state)
    if command.from_revision > state.cursor:
        message = f"invalid from_revision {command.from_revision}: expected at most the cursor, {state.cursor}"
        raise Rejected(Kind.PRECONDITION, "REPLAY_AHEAD", message, cursor=str(state.cursor))
    replayed = v1.WebhookReplayed(
        webhook_id=command.webhook_id,
        from_revision=state.cursor,
        to_revision=command.from_revision,
        epoch=command.epoch,
    )
    return [replayed]


def _report(command: Reported, state: State) -> Sequence[Message]:
    void = not state.exists or state.parked or command.epoch != state.epoch
    return [] if void or command.payload.position <= state.cursor else [command.payload]


def _check_exists(webhook_id: str, state: State) -> None:
    if not state.exists:
        message = f"no webhook has the id {webhook_id[:100]!r}. List the ids with ListWebhooks"
        raise Rejected(Kind.NOT_FOUND, "WEBHOOK_NOT_FOUND", message, webhook_id=webhook_id[:100])


def _check(settings: v1.WebhookSettings) -> None:
    _check_url(settings.url)
    check_text(settings.model, "model pattern", 255, "INVALID_PATTERN")
    check_text(settings.alias, "alias pattern", 255, "INVALID_PATTERN")
    check_prose(settings.description, "description", 5000, "INVALID_DESCRIPTION")
    if unknown := {*settings.changes} - {*ALL_CHANGES}:
        raise Rejected(
            Kind.INVALID,
            "INVALID_CHANGE_KIND",
            f"unknown kinds of change: {sorted(unknown)}. Expected MOVED or REMOVED",
        )


def _check_url(url: str) -> None:
    check_text(url, "URL", 2000, "INVALID_URL")
    try:
        parts = urlsplit(url)
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise _invalid_url(url) from None
    if not well or "@" in parts.netloc or parts.fragment or any(not "!" <= char <= "~" for char in url):
        raise _invalid_url(url)


def _invalid_url(url: str) -> Rejected:
    message = f"invalid URL {url[:300]!r}: expected http or https, in ASCII, without user, password and fragment"
    return Rejected(Kind.INVALID, "INVALID_URL", message, url=url[:300])


def evolve(state: State, event: RecordedEvent) -> State:
    """Return the state after an event."""
    payload = webhook_event(event.data)
    match payload:
        case v1.WebhookCreated():
            state = State(exists=True, settings=payload.settings, cursor=payload.from_revision, epoch=event.position)
            state = replace(state, log_epoch=payload.epoch or FIRST_EPOCH)
        case v1.WebhookChanged():
            state = replace(state, settings=payload.to_settings)
        case v1.WebhookDeleted():
            state = State(epoch=event.position)
        case v1.WebhookSecretRotated():
            until = nanoseconds(payload.previous_valid_until)
            state = replace(state, rotation=payload.rotation, previous_valid_until=until)
        case v1.WebhookDelivered():
            log_epoch = payload.epoch or FIRST_EPOCH
            state = replace(state, cursor=payload.position, cursor_event=payload.event_id, log_epoch=log_epoch)
        case v1.WebhookParked():
            state = replace(state, parked=True)
        case v1.WebhookResumed() | v1.WebhookReplayed():
            state = replace(_moved(state, payload.to_revision, event.position), log_epoch=payload.epoch or FIRST_EPOCH)
        case _:
            assert_never(payload)
    return state


def _moved(state: State, cursor: int, epoch: int) -> State:
    same = state.cursor_event if cursor == state.cursor else ""
    return replace(state, cursor=cursor, cursor_event=same, epoch=epoch, parked=False)


def stream_of(event: Message) -> str:
    """Return the stream that an event belongs to: its endpoint's."""
    return webhook_stream(webhook_event(event).webhook_id)


DECIDER: Decider[State] = Decider(State(), decide, evolve, stream_of)
