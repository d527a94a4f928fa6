"""How a log's stream must be set up, and what differs in one that the server gives back."""

from __future__ import annotations

from typing import Any

from nats.js import api

DUPLICATE_WINDOW = 120.0

_COMPARED = {
    "subjects": "events of other subjects are refused, or others' messages are taken",
    "allow_direct": "events cannot be read",
    "allow_atomic": "several events cannot be appended all or none",
    "storage": "a restart of NATS loses every event",
    "discard": "a full log drops its oldest events",
    "deny_delete": "single events can be deleted",
    "deny_purge": "events can be purged",
    "allow_rollup_hdrs": "a message can replace all events before it",
    "allow_msg_ttl": "a message can say when it is dropped",
    "duplicate_window": "NATS forgets sooner which events it has",
    "mirror": "its events are written elsewhere",
    "sources": "its events are written elsewhere too",
    "sealed": "nothing can be appended",
}
"""The settings that are compared, and what another value does."""

NEEDED = ("subjects", "allow_direct", "mirror", "sealed")
"""The settings without which a log cannot be used at all."""

WARNED_ELSEWHERE = ("storage", "discard", "allow_atomic")
"""The settings that `durability.stream_warnings` looks at."""


def stream_config(log: str, replicas: int, *, erasable: bool) -> api.StreamConfig:
    """Return the configuration that the stream of a log is created with."""
    return api.StreamConfig(
        name=f"rf-{log}",
        description=f"The {log} log of rollforward",
        subjects=[f"rf.{log}.>"],
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        discard=api.DiscardPolicy.NEW,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
        allow_atomic=True,
        deny_delete=not erasable,
        deny_purge=not erasable,
    )


def differences(asked: api.StreamConfig, given: api.StreamConfig) -> dict[str, str]:
    """Return what differs in the configuration that the server gives back, by setting, in words.

    A server may drop what it was asked for without an error: nats-server 2.15.1 creates a stream with deny_purge off
    when it leaves delete markers.
    """
    faults = {}
    for setting, effect in _COMPARED.items():
        wanted, real = _plain(getattr(asked, setting)), _plain(getattr(given, setting))
        if wanted != real and not _is_stricter(setting, real):
            faults[setting] = f"the stream's {setting} is {_shown(real)}, not {_shown(wanted)}: {effect}"
    return faults


def _is_stricter(setting: str, real: Any) -> bool:
    return setting in {"deny_delete", "deny_purge"} and real is True


def _plain(value: Any) -> Any:
    """Return a setting's value, alike whether it was left out or is off."""
    return getattr(value, "value", value) or None


def _shown(value: Any) -> str:
    return "off" if value is None else "on" if value is True else str(value)
