"""Tracking: experiments, runs, logged models, what they log, and their artifacts. It owns the tracking log.

Its streams: ``experiments`` (all experiments, so that names are unique), ``run/<run_id>`` (a run's life, parameters,
tags, lineage and artifacts), ``metrics/<run_id>`` (its metric points, which need no order among writers) and
``logged-model/<model_id>``.
"""

from eventstore import EventTypes
from rollforward import v1

EVENTS = EventTypes(
    [
        v1.ExperimentCreated,
        v1.ExperimentRenamed,
        v1.ExperimentTagsChanged,
        v1.ExperimentDeleted,
        v1.ExperimentRestored,
        v1.RunStarted,
        v1.RunRenamed,
        v1.RunDescribed,
        v1.RunLogged,
        v1.RunInputsLogged,
        v1.RunOutputsLogged,
        v1.MetricsLogged,
        v1.ArtifactLogged,
        v1.RunFinished,
        v1.RunResumed,
        v1.RunLost,
        v1.RunDeleted,
        v1.RunRestored,
        v1.LoggedModelCreated,
        v1.LoggedModelParamsLogged,
        v1.LoggedModelTagsChanged,
        v1.LoggedModelArtifactLogged,
        v1.LoggedModelFinalized,
        v1.LoggedModelDeleted,
        v1.LoggedModelRestored,
        v1.LogEpochBegan,
    ],
)

EXPERIMENTS_STREAM = "experiments"


def run_stream(run_id: str) -> str:
    """The stream of a run."""
    return f"run/{run_id}"


def metrics_stream(run_id: str) -> str:
    """The stream of a run's metric points."""
    return f"metrics/{run_id}"


def logged_model_stream(model_id: str) -> str:
    """The stream of a logged model."""
    return f"logged-model/{model_id}"
