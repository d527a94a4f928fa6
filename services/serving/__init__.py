"""Serving: the pods, the aliases that they follow, and what they serve.

It owns the serving log; a stream is one pod's, ``pod/<pod_id>``.
"""

from eventstore import EventTypes
from rollforward import v1

EVENTS = EventTypes([v1.PodStarted, v1.AssignmentApplied, v1.AssignmentFailed, v1.PodStopped, v1.LogEpochBegan])


def pod_stream(pod_id: str) -> str:
    """The stream of a pod."""
    return f"pod/{pod_id}"
