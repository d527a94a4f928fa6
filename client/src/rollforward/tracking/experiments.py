"""Experiments: create, find, rename, tag, delete and restore them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from rollforward import v1
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._validation import checked_run_tags
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

ExperimentLike = str | v1.Experiment
"""An experiment's name, or an experiment as returned by the service."""

Lifecycle = Literal["active", "deleted", "all"]
"""Which items to include."""

LIFECYCLES: Final[Mapping[str, v1.Lifecycle.ValueType]] = {
    "active": v1.LIFECYCLE_ACTIVE,
    "deleted": v1.LIFECYCLE_DELETED,
    "all": v1.LIFECYCLE_ALL,
}


class Experiments(Resource):
    """Experiments of a service: create, find, change and delete them."""

    def create(
        self,
        name: str,
        *,
        tags: Mapping[str, object] | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> str:
        """Create an experiment and return its id. `name` has 1 to 500 characters.

        Raises:
            InvalidRequest: INVALID_NAME, INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            AlreadyExists: EXPERIMENT_EXISTS.
            PreconditionFailed: EXPERIMENT_FULL.
            Unavailable: No result within the timeout.
        """
        labels = checked_run_tags(tags)
        chosen = request_id or new_request_id()
        request = v1.CreateExperimentRequest(name=name, tags=labels, reason=reason, request_id=chosen)
        return self._connection.call(self._connection.tracking.CreateExperiment, request).experiment_id

    def get(self, name: str | None = None, *, experiment_id: str | None = None) -> v1.Experiment:
        """Return an experiment by name or by id; by name, the last deleted one if no active one has the name.

        Raises:
            InvalidRequest: INVALID_ARGUMENTS.
            NotFound: EXPERIMENT_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        if (name is None) == (experiment_id is None):
            raise InvalidRequest("INVALID_ARGUMENTS", "expected either a name or an experiment_id")
        request = v1.GetExperimentRequest(**{"name": name} if name is not None else {"experiment_id": experiment_id})
        return self._connection.call(self._connection.tracking.GetExperiment, request).experiment

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002 - the contract's word
        order_by: str = "",
        lifecycle: Lifecycle = "active",
        limit: int | None = None,
    ) -> builtins.list[v1.Experiment]:
        """List experiments, newest first or as `order_by` says; `limit` None for all.

        `filter` such as "name LIKE 'fraud%' AND tags.team = 'risk'", `order_by` such as "name ASC": see docs/search.md.

        Raises:
            InvalidRequest: INVALID_FILTER, INVALID_ORDER, INVALID_LIFECYCLE, INVALID_LIMIT.
            Unavailable: No result within the timeout.
        """
        query = v1.ListExperimentsRequest(filter=filter, order_by=order_by, lifecycle=lifecycle_of(lifecycle))

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Experiment], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.tracking.ListExperiments, query)
            return page.experiments, page.next_page_token

        return collect(fetch, limit)

    def rename(
        self,
        experiment: ExperimentLike,
        new_name: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Rename an experiment; its old name becomes free.

        Raises:
            InvalidRequest: INVALID_NAME, REQUEST_ID_REUSED.
            NotFound: EXPERIMENT_NOT_FOUND.
            AlreadyExists: EXPERIMENT_EXISTS.
            PreconditionFailed: EXPERIMENT_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.RenameExperimentRequest(
            experiment_id=experiment_id_of(self._connection, experiment),
            new_name=new_name,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.RenameExperiment, request)

    def set_tags(
        self,
        experiment: ExperimentLike,
        tags: Mapping[str, object],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set tags of an experiment; its other tags stay.

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            NotFound: EXPERIMENT_NOT_FOUND.
            PreconditionFailed: EXPERIMENT_DELETED, EXPERIMENT_FULL.
            Unavailable: No result within the timeout.
        """
        request = v1.ChangeExperimentTagsRequest(
            set=checked_run_tags(tags),
            experiment_id=experiment_id_of(self._connection, experiment),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.ChangeExperimentTags, request)

    def remove_tags(
        self,
        experiment: ExperimentLike,
        keys: Iterable[str],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Remove tags of an experiment; unknown keys are ignored. Raises as set_experiment_tags."""
        request = v1.ChangeExperimentTagsRequest(
            experiment_id=experiment_id_of(self._connection, experiment),
            remove=[keys] if isinstance(keys, str) else keys,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.ChangeExperimentTags, request)

    def delete(
        self,
        experiment: ExperimentLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Delete an experiment with its runs and logged models; the history stays, and it can be restored.

        Raises:
            InvalidRequest: REQUEST_ID_REUSED.
            NotFound: EXPERIMENT_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.DeleteExperimentRequest(
            experiment_id=experiment_id_of(self._connection, experiment),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.DeleteExperiment, request)

    def restore(
        self,
        experiment: ExperimentLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Restore a deleted experiment.

        Raises:
            InvalidRequest: REQUEST_ID_REUSED.
            NotFound: EXPERIMENT_NOT_FOUND.
            AlreadyExists: EXPERIMENT_EXISTS: another experiment took its name.
            Unavailable: No result within the timeout.
        """
        request = v1.RestoreExperimentRequest(
            experiment_id=experiment_id_of(self._connection, experiment),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.RestoreExperiment, request)


def experiment_id_of(connection: Connection, experiment: ExperimentLike) -> str:
    """Return the id of an experiment, given by name or as a message.

    Raises:
        NotFound: EXPERIMENT_NOT_FOUND.
    """
    if isinstance(experiment, v1.Experiment):
        return experiment.experiment_id
    return Experiments(connection).get(experiment).experiment_id


def lifecycle_of(lifecycle: Lifecycle) -> v1.Lifecycle.ValueType:
    """Return the contract's value of a lifecycle.

    Raises:
        InvalidRequest: INVALID_LIFECYCLE.
    """
    value = LIFECYCLES.get(lifecycle)
    if value is None:
        message = f"invalid lifecycle {lifecycle!r}: expected one of {', '.join(LIFECYCLES)}"
        raise InvalidRequest("INVALID_LIFECYCLE", message)
    return value


create_experiment = default_client_function("create_experiment", Experiments, Experiments.create)
get_experiment = default_client_function("get_experiment", Experiments, Experiments.get)
list_experiments = default_client_function("list_experiments", Experiments, Experiments.list)
rename_experiment = default_client_function("rename_experiment", Experiments, Experiments.rename)
set_experiment_tags = default_client_function("set_experiment_tags", Experiments, Experiments.set_tags)
remove_experiment_tags = default_client_function("remove_experiment_tags", Experiments, Experiments.remove_tags)
delete_experiment = default_client_function("delete_experiment", Experiments, Experiments.delete)
restore_experiment = default_client_function("restore_experiment", Experiments, Experiments.restore)
