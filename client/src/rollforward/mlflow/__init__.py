"""The plugin that makes `rollforward://HOST:PORT` a tracking and registry URI of MLflow.

MLflow finds these functions by entry points, and loads them when it is imported: they import nothing before they are
called.
"""

from __future__ import annotations

from typing import Any

from rollforward.mlflow.change_reason import reason

__all__ = ["artifact_repository", "reason", "registry_store", "tracking_store"]


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:  # noqa: ARG001 - MLflow passes it
    """Return the tracking store of a URI."""
    from rollforward.mlflow.stores import TrackingStore  # noqa: PLC0415 - MLflow loads this module at its import

    return TrackingStore(store_uri)


def registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:  # noqa: ARG001 - MLflow passes it
    """Return the model registry store of a URI."""
    from rollforward.mlflow.stores import RegistryStore  # noqa: PLC0415

    return RegistryStore(store_uri)


def artifact_repository(
    artifact_uri: str,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> Any:
    """Return the artifact repository of a URI."""
    from rollforward.mlflow.artifact_repository import ArtifactRepository  # noqa: PLC0415

    return ArtifactRepository(artifact_uri, tracking_uri, registry_uri)
