"""All requests, in an order in which each finds what the ones before it made."""

from __future__ import annotations

from itertools import chain

from tests.mlflow_rest.steps.artifacts import artifacts
from tests.mlflow_rest.steps.experiments import experiments
from tests.mlflow_rest.steps.histories import histories
from tests.mlflow_rest.steps.inputs import inputs
from tests.mlflow_rest.steps.logged_models import logged_models
from tests.mlflow_rest.steps.malformed import malformed
from tests.mlflow_rest.steps.registry import registry
from tests.mlflow_rest.steps.runs import runs
from tests.mlflow_rest.steps.searches import searches
from tests.mlflow_rest.steps.step import Step
from tests.mlflow_rest.steps.versions import versions

TOPICS = (
    experiments,
    runs,
    searches,
    histories,
    inputs,
    logged_models,
    registry,
    versions,
    artifacts,
    malformed,
)


def all_steps() -> list[Step]:
    """Return all requests."""
    return list(chain.from_iterable(topic() for topic in TOPICS))
