"""The events of the serving log.

Rules, folds and rows match on these unions: an event that one of them does not handle fails the type check.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

from google.protobuf.message import Message

from rollforward import v1

PodEvent: TypeAlias = v1.AssignmentApplied | v1.AssignmentFailed | v1.PodStarted | v1.PodStopped
ServingEvent: TypeAlias = PodEvent | v1.LogEpochBegan

SERVING_EVENTS: tuple[type[Message], ...] = get_args(ServingEvent)
"""The types of all events of the log, the most frequent first."""


def pod_event(data: Message) -> PodEvent:
    """Return an event's payload as an event of a pod.

    Raises:
        TypeError: It is not an event of a pod.
    """
    if isinstance(data, PodEvent):
        return data
    raise TypeError(f"expected an event of a pod, got {type(data).__name__}")
