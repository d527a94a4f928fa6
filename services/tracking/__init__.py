"""Tracking: experiments, runs, what they log, and their artifacts. It owns the tracking log.

Its streams: ``experiments`` (all experiments, so that names are unique), ``run/<run_id>`` (a run's life, parameters,
tags and artifacts) and ``metrics/<run_id>`` (its metric points, which need no order among writers).
"""

from eventstore.codec import EventTypes
from rollforward import v1

EVENTS = EventTypes(
    [v1.ExperimentCreated, v1.RunStarted, v1.RunLogged, v1.MetricsLogged, v1.ArtifactLogged, v1.RunFinished],
)

EXPERIMENTS_STREAM = "experiments"


def run_stream(run_id: str) -> str:
    """The stream of a run."""
    return f"run/{run_id}"


def metrics_stream(run_id: str) -> str:
    """The stream of a run's metric points."""
    return f"metrics/{run_id}"
