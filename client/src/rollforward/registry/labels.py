"""Descriptions and tags of models and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward._validation import checked_tags
from rollforward.references import VersionLike, version_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Labels(Resource):
    """Descriptions and tags of models and versions."""

    def set_description(
        self,
        model: str,
        text: str,
        version: VersionLike | None = None,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Change the description of a model, or of one version of it.

        Raises:
            InvalidRequest: INVALID_DESCRIPTION, INVALID_VERSION, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED, MODEL_DELETED, VERSION_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.SetDescriptionRequest(
            model=model,
            version=_number(model, version),
            description=text,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.registry.SetDescription, request)

    def set_tags(
        self,
        model: str,
        tags: Mapping[str, object],
        version: VersionLike | None = None,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set tags of a model, or of one version of it; other tags stay.

        Raises as set_description, with InvalidRequest (INVALID_KEY, INVALID_VALUE, INVALID_TAG) for the tags.
        """
        request = v1.ChangeTagsRequest(
            model=model,
            version=_number(model, version),
            set=checked_tags(tags),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.registry.ChangeTags, request)

    def remove_tags(
        self,
        model: str,
        keys: Iterable[str],
        version: VersionLike | None = None,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Remove tags of a model, or of one version of it; unknown keys are ignored.

        Raises as set_description.
        """
        request = v1.ChangeTagsRequest(
            model=model,
            version=_number(model, version),
            remove=[keys] if isinstance(keys, str) else keys,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.registry.ChangeTags, request)


def _number(model: str, version: VersionLike | None) -> int:
    # In the contract, version 0 means the model itself.
    return 0 if version is None else version_number(model, version)


set_description = default_client_function("set_description", Labels, Labels.set_description)
set_tags = default_client_function("set_tags", Labels, Labels.set_tags)
remove_tags = default_client_function("remove_tags", Labels, Labels.remove_tags)
