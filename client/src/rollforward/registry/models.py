"""Registered models: create, find, rename, gate, delete and restore them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.response_warnings import warn_scheduled
from rollforward._validation import checked_tags
from rollforward.registry.assignments import Assignments
from rollforward.registry.labels import Labels

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping


class Models(Labels):
    """Registered models: create, find, change and delete them."""

    def create(
        self,
        name: str,
        *,
        description: str = "",
        tags: Mapping[str, object] | None = None,
        gate: str = "",
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.Model:
        """Create a model.

        `name` has 1 to 255 characters, none of "/", ":", "@"; `gate` is a CEL expression that new versions must pass,
        such as "run.metrics.accuracy > 0.95".

        Raises:
            InvalidRequest: INVALID_NAME, INVALID_GATE, REQUEST_ID_REUSED.
            AlreadyExists: MODEL_EXISTS.
            PreconditionFailed: MODEL_RENAMED if a model had the name before.
            Unavailable: No result within the timeout.
        """
        request = v1.CreateModelRequest(
            name=name,
            description=description,
            tags=checked_tags(tags),
            registration_gate=gate,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.registry.CreateModel, request).model

    def rename(
        self,
        model: str,
        new_name: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Rename a model with its versions, aliases and history; the old name is rejected from then on.

        Raises:
            InvalidRequest: INVALID_NAME, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND.
            AlreadyExists: MODEL_EXISTS.
            PreconditionFailed: MODEL_RENAMED, with `renamed_to`; MODEL_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.RenameModelRequest(
            model=model, new_name=new_name, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.registry.RenameModel, request)

    def set_registration_gate(
        self,
        model: str,
        expression: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set, change or (with an empty expression) remove the gate that new versions of a model must pass.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            InvalidRequest: INVALID_GATE, REQUEST_ID_REUSED.
            PreconditionFailed: MODEL_RENAMED, MODEL_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.SetRegistrationGateRequest(
            model=model, expression=expression, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.registry.SetRegistrationGate, request)

    def delete(self, model: str, *, reason: str = "", request_id: str | None = None) -> None:
        """Delete a model that has no aliases; the history stays, and it can be restored.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_IN_USE, with `aliases`; MODEL_RENAMED.
            InvalidRequest: REQUEST_ID_REUSED.
            Unavailable: No result within the timeout.
        """
        request = v1.DeleteModelRequest(model=model, reason=reason, request_id=request_id or new_request_id())
        response = self._connection.call(self._connection.registry.DeleteModel, request)
        warn_scheduled(f"{model} is deleted", response.scheduled_aliases)

    def restore(self, model: str, *, reason: str = "", request_id: str | None = None) -> None:
        """Restore a deleted model.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            InvalidRequest: REQUEST_ID_REUSED.
            Unavailable: No result within the timeout.
        """
        request = v1.RestoreModelRequest(model=model, reason=reason, request_id=request_id or new_request_id())
        self._connection.call(self._connection.registry.RestoreModel, request)

    def get(self, name: str) -> v1.Model:
        """Return one model with all of its aliases, deleted or not.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        return _complete(
            self._connection,
            self._connection.call(self._connection.registry.GetModel, v1.GetModelRequest(name=name)).model,
        )

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002 - the contract's word
        order_by: str = "",
        show_deleted: bool = False,
        limit: int | None = None,
    ) -> builtins.list[v1.Model]:
        """List models by name, or in the order of `order_by` ("updated DESC"); `limit` None returns all.

        `filter` joins comparisons by AND, such as "name LIKE 'fraud%' AND tags.team = 'risk'", over name, created,
        updated (milliseconds since 1970) and tags.

        Raises:
            InvalidRequest: INVALID_FILTER, INVALID_ORDER.
            Unavailable: No result within the timeout.
        """
        query = v1.ListModelsRequest(filter=filter, order_by=order_by, show_deleted=show_deleted)

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Model], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.registry.ListModels, query)
            return (_complete(self._connection, model) for model in page.models), page.next_page_token

        return collect(fetch, limit)


def _complete(connection: Connection, model: v1.Model) -> v1.Model:
    """Add the aliases that did not fit into the response."""
    if model.more_aliases:
        aliases = Assignments(connection).resolve_all(model.name).aliases
        for alias in aliases:
            alias.ClearField("reason")  # as in the aliases of a response
        del model.aliases[:]
        model.aliases.extend(aliases)
        model.more_aliases = False
    return model


create_model = default_client_function("create_model", Models, Models.create)
rename_model = default_client_function("rename_model", Models, Models.rename)
set_registration_gate = default_client_function("set_registration_gate", Models, Models.set_registration_gate)
delete_model = default_client_function("delete_model", Models, Models.delete)
restore_model = default_client_function("restore_model", Models, Models.restore)
get_model = default_client_function("get_model", Models, Models.get)
list_models = default_client_function("list_models", Models, Models.list)
