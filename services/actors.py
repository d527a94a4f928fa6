"""Who acts: the names under which the services themselves write events, which no caller may claim."""

from __future__ import annotations

import unicodedata

from eventstore import Kind, Rejected

TRACKING = "tracking"
WEBHOOKS = "webhooks"

RESERVED = frozenset({TRACKING, WEBHOOKS, "registry", "serving", "audit", "system", "schedules", "rollforward"})


def check_claimed(actor: str) -> None:
    """Refuse an actor that reads like one of the services' own. Raises `Rejected` ACTOR_RESERVED."""
    if unicodedata.normalize("NFKC", actor).casefold().strip() in RESERVED:
        fault = f"reserved actor {actor!r}: it is a service's name. Use another actor"
        raise Rejected(Kind.INVALID, "ACTOR_RESERVED", fault, actor=actor)
