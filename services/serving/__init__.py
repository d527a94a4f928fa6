"""Serving: the pods, the aliases that they follow, and what they serve.

It owns the serving log; a stream is one pod's, ``pod/<pod_id>``.
"""

from eventstore import EventTypes
from services.serving.events import SERVING_EVENTS

EVENTS = EventTypes(SERVING_EVENTS)


def pod_stream(pod_id: str) -> str:
    """Return the stream of a pod."""
    return f"pod/{pod_id}"
