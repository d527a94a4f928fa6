"""The events of the tracking log, by what they are about.

Rules, folds and rows match on these unions: an event that one of them does not handle fails the type check.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

from google.protobuf.message import Message

from rollforward import v1

RunChange: TypeAlias = (
    v1.RunLogged
    | v1.RunFinished
    | v1.ArtifactLogged
    | v1.RunInputsLogged
    | v1.RunOutputsLogged
    | v1.RunRenamed
    | v1.RunDescribed
    | v1.RunResumed
    | v1.RunLost
    | v1.RunDeleted
    | v1.RunRestored
)
RunEvent: TypeAlias = v1.MetricsLogged | v1.RunStarted | RunChange
ExperimentChange: TypeAlias = (
    v1.ExperimentRenamed | v1.ExperimentTagsChanged | v1.ExperimentDeleted | v1.ExperimentRestored
)
ExperimentEvent: TypeAlias = v1.ExperimentCreated | ExperimentChange
LoggedModelChange: TypeAlias = (
    v1.LoggedModelParamsLogged
    | v1.LoggedModelTagsChanged
    | v1.LoggedModelArtifactLogged
    | v1.LoggedModelFinalized
    | v1.LoggedModelDeleted
    | v1.LoggedModelRestored
)
LoggedModelEvent: TypeAlias = v1.LoggedModelCreated | LoggedModelChange
TrackingEvent: TypeAlias = RunEvent | ExperimentEvent | LoggedModelEvent | v1.LogEpochBegan

TRACKING_EVENTS: tuple[type[Message], ...] = get_args(TrackingEvent)
"""The types of all events of the log; those that come most often are first."""


def tracking_event(data: Message) -> TrackingEvent:
    """Return an event's payload as an event of this log.

    Raises:
        TypeError: It is of another log.
    """
    if isinstance(data, TrackingEvent):
        return data
    raise TypeError(f"expected an event of the tracking log, got {type(data).__name__}")


def run_event(data: Message) -> RunEvent:
    """Return an event's payload as an event of a run.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(data, RunEvent):
        return data
    raise TypeError(f"expected an event of a run, got {type(data).__name__}")


def experiment_event(data: Message) -> ExperimentEvent:
    """Return an event's payload as an event of an experiment.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(data, ExperimentEvent):
        return data
    raise TypeError(f"expected an event of an experiment, got {type(data).__name__}")


def logged_model_event(data: Message) -> LoggedModelEvent:
    """Return an event's payload as an event of a logged model.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(data, LoggedModelEvent):
        return data
    raise TypeError(f"expected an event of a logged model, got {type(data).__name__}")
