"""Logged models: models that runs trained, with their own parameters, tags, metrics and files."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._validation import checked_params, checked_run_tags
from rollforward.references import RunLike, run_id_of
from rollforward.tracking.experiments import ExperimentLike, Lifecycle, experiment_id_of, lifecycle_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from rollforward._artifacts.trees import Progress

LoggedModelLike = str | v1.LoggedModel
"""A logged model's id, or a logged model as returned by the service."""


class LoggedModels(Resource):
    """Logged models of a service: create, find, change and delete them."""

    def create(
        self,
        experiment: ExperimentLike,
        name: str,
        *,
        model_type: str = "",
        run: RunLike | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        model_id: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Create a logged model in an experiment and return its id; it is PENDING until finalize_logged_model.

        `run` is the run that trains it. Names need not be unique. To log its metrics, pass its `model_id` to a run's
        log_metric.

        Raises:
            InvalidRequest: INVALID_MODEL_ID, INVALID_NAME, INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            NotFound: EXPERIMENT_NOT_FOUND, RUN_NOT_FOUND.
            AlreadyExists: LOGGED_MODEL_EXISTS.
            PreconditionFailed: EXPERIMENT_DELETED, LOGGED_MODEL_FULL.
            Unavailable: No result within the timeout.
        """
        request = v1.CreateLoggedModelRequest(
            params=checked_params(params or {}),
            tags=checked_run_tags(tags),
            model_id=model_id or f"m-{uuid.uuid4().hex}",
            experiment_id=experiment_id_of(self._connection, experiment),
            name=name,
            model_type=model_type,
            source_run_id="" if run is None else run_id_of(run),
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.logged_models.CreateLoggedModel, request)
        return request.model_id

    def get(self, model: LoggedModelLike) -> v1.LoggedModel:
        """Return one logged model with all of its parameters, tags and metrics.

        Raises:
            NotFound: LOGGED_MODEL_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.GetLoggedModelRequest(model_id=_id_of(model))
        return _complete(
            self._connection, self._connection.call(self._connection.logged_models.GetLoggedModel, request).model
        )

    def search(
        self,
        experiments: ExperimentLike | Iterable[ExperimentLike] = (),
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        order_by: str = "",
        datasets: Iterable[v1.Dataset] = (),
        lifecycle: Lifecycle = "active",
        limit: int | None = None,
    ) -> list[v1.LoggedModel]:
        """Search logged models of some experiments, or of all; newest first or in the order of `order_by`.

        `filter` is an expression such as "metrics.auc > 0.9 AND model_type = 'sklearn'", `order_by` such as
        "metrics.auc DESC": see docs/search.md. With `datasets`, conditions on metrics consider only those measured on
        one of them, by name and, if given, digest. `limit` None returns all.

        Raises:
            InvalidRequest: INVALID_FILTER, INVALID_ORDER, INVALID_LIFECYCLE, INVALID_LIMIT.
            NotFound: EXPERIMENT_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        some = [experiments] if isinstance(experiments, str | v1.Experiment) else experiments
        query = v1.ListLoggedModelsRequest(
            experiment_ids=[experiment_id_of(self._connection, one) for one in some],
            filter=filter,
            order_by=order_by,
            datasets=datasets,
            lifecycle=lifecycle_of(lifecycle),
        )

        def fetch(size: int, token: str) -> tuple[Iterable[v1.LoggedModel], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.logged_models.ListLoggedModels, query)
            return (_complete(self._connection, model) for model in page.models), page.next_page_token

        return collect(fetch, limit)

    def log_params(
        self,
        model: LoggedModelLike,
        params: Mapping[str, object],
        *,
        request_id: str | None = None,
    ) -> None:
        """Log parameters of a logged model, as text; a parameter is written once and never changes.

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            NotFound: LOGGED_MODEL_NOT_FOUND.
            PreconditionFailed: PARAM_CHANGED, LOGGED_MODEL_DELETED, LOGGED_MODEL_FULL.
            Unavailable: No result within the timeout.
        """
        request = v1.LogLoggedModelRequest(
            model_id=_id_of(model), params=checked_params(params), request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.logged_models.LogLoggedModel, request)

    def set_tags(
        self,
        model: LoggedModelLike,
        tags: Mapping[str, object],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set tags of a logged model; its other tags stay. Raises as log_logged_model_params, without PARAM_CHANGED."""
        request = v1.LogLoggedModelRequest(
            model_id=_id_of(model),
            set_tags=checked_run_tags(tags),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.logged_models.LogLoggedModel, request)

    def remove_tags(
        self,
        model: LoggedModelLike,
        keys: Iterable[str],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Remove tags of a logged model; unknown keys are ignored. Raises as set_logged_model_tags."""
        removed = [keys] if isinstance(keys, str) else keys
        request = v1.LogLoggedModelRequest(
            model_id=_id_of(model), removed_tags=removed, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.logged_models.LogLoggedModel, request)

    def log_artifact(
        self,
        model: LoggedModelLike,
        path: str | PathLike[str],
        *,
        progress: Progress | None = None,
        request_id: str | None = None,
    ) -> str:
        """Upload a directory, or one file, as the files of a logged model, and return the digest.

        Raises:
            InvalidRequest: INVALID_PATH, SYMLINK_ESCAPES, MANIFEST_EMPTY, REQUEST_ID_REUSED.
            NotFound: LOGGED_MODEL_NOT_FOUND.
            PreconditionFailed: LOGGED_MODEL_DELETED.
            OSError: See the message.
            Unavailable: No result within the timeout.
        """
        digest, _ = ArtifactTrees(self._connection).upload(path, progress=progress)
        request = v1.LogLoggedModelArtifactRequest(
            model_id=_id_of(model), digest=digest, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.logged_models.LogLoggedModelArtifact, request)
        return digest

    def finalize(
        self,
        model: LoggedModelLike,
        *,
        failed: bool = False,
        request_id: str | None = None,
    ) -> None:
        """Mark a logged model as ready, or as `failed`.

        Raises:
            InvalidRequest: REQUEST_ID_REUSED.
            NotFound: LOGGED_MODEL_NOT_FOUND.
            PreconditionFailed: LOGGED_MODEL_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.FinalizeLoggedModelRequest(
            model_id=_id_of(model),
            status=v1.LOGGED_MODEL_STATUS_FAILED if failed else v1.LOGGED_MODEL_STATUS_READY,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.logged_models.FinalizeLoggedModel, request)

    def delete(
        self,
        model: LoggedModelLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Delete a logged model; its history stays, and it can be restored.

        Raises:
            InvalidRequest: REQUEST_ID_REUSED.
            NotFound: LOGGED_MODEL_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.DeleteLoggedModelRequest(
            model_id=_id_of(model), reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.logged_models.DeleteLoggedModel, request)

    def restore(
        self,
        model: LoggedModelLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Restore a deleted logged model. Raises as delete_logged_model."""
        request = v1.RestoreLoggedModelRequest(
            model_id=_id_of(model), reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.logged_models.RestoreLoggedModel, request)


def _complete(connection: Connection, model: v1.LoggedModel) -> v1.LoggedModel:
    """Add the metrics that did not fit into the response."""
    while model.next_metrics_token:
        request = v1.ListLoggedModelMetricsRequest(model_id=model.model_id, page_token=model.next_metrics_token)
        page = connection.call(connection.logged_models.ListLoggedModelMetrics, request)
        model.metrics.extend(page.metrics)
        model.next_metrics_token = page.next_page_token
    return model


def _id_of(model: LoggedModelLike) -> str:
    return model if isinstance(model, str) else model.model_id


create_logged_model = default_client_function("create_logged_model", LoggedModels, LoggedModels.create)
get_logged_model = default_client_function("get_logged_model", LoggedModels, LoggedModels.get)
search_logged_models = default_client_function("search_logged_models", LoggedModels, LoggedModels.search)
log_logged_model_params = default_client_function("log_logged_model_params", LoggedModels, LoggedModels.log_params)
set_logged_model_tags = default_client_function("set_logged_model_tags", LoggedModels, LoggedModels.set_tags)
remove_logged_model_tags = default_client_function("remove_logged_model_tags", LoggedModels, LoggedModels.remove_tags)
log_logged_model_artifact = default_client_function(
    "log_logged_model_artifact", LoggedModels, LoggedModels.log_artifact
)
finalize_logged_model = default_client_function("finalize_logged_model", LoggedModels, LoggedModels.finalize)
delete_logged_model = default_client_function("delete_logged_model", LoggedModels, LoggedModels.delete)
restore_logged_model = default_client_function("restore_logged_model", LoggedModels, LoggedModels.restore)
