"""Tracking: experiments, runs, logged models, what they log, and their artifacts. It owns the tracking log.

Its streams: ``experiments`` (all experiments, so that names are unique), ``run/<run_id>`` (a run's life, parameters,
tags, lineage and artifacts), ``metrics/<run_id>`` (its metric points, which need no order among writers) and
``logged-model/<model_id>``.
"""

from eventstore import EventTypes
from services.tracking.events import TRACKING_EVENTS

EVENTS = EventTypes(TRACKING_EVENTS)

EXPERIMENTS_STREAM = "experiments"


def run_stream(run_id: str) -> str:
    """Return the stream of a run."""
    return f"run/{run_id}"


def metrics_stream(run_id: str) -> str:
    """Return the stream of a run's metric points."""
    return f"metrics/{run_id}"


def logged_model_stream(model_id: str) -> str:
    """Return the stream of a logged model."""
    return f"logged-model/{model_id}"
