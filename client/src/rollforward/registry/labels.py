"""Descriptions and tags of models and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, current, new_request_id
from rollforward._validation import checked_tags
from rollforward.references import VersionLike, version_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def set_description(
    model: str,
    text: str,
    version: VersionLike | None = None,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Describe a model, or one version of it, otherwise.

    Raises InvalidRequest (INVALID_DESCRIPTION, INVALID_VERSION, REQUEST_ID_REUSED), NotFound (MODEL_NOT_FOUND,
    VERSION_NOT_FOUND), PreconditionFailed (MODEL_RENAMED, MODEL_DELETED, VERSION_DELETED), Unavailable.
    """
    link = current(connection)
    request = v1.SetDescriptionRequest(
        model=model,
        version=_number(model, version),
        description=text,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    link.call(link.registry.SetDescription, request)


def set_tags(
    model: str,
    tags: Mapping[str, object],
    version: VersionLike | None = None,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Set tags of a model, or of one version of it; other tags stay as they are.

    Raises as set_description, with InvalidRequest (INVALID_KEY, INVALID_VALUE, INVALID_TAG) for the tags.
    """
    link = current(connection)
    request = v1.ChangeTagsRequest(
        model=model,
        version=_number(model, version),
        set=checked_tags(tags),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    link.call(link.registry.ChangeTags, request)


def remove_tags(
    model: str,
    keys: Iterable[str],
    version: VersionLike | None = None,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Remove tags of a model, or of one version of it; keys that are not there are passed over.

    Raises as set_description.
    """
    link = current(connection)
    request = v1.ChangeTagsRequest(
        model=model,
        version=_number(model, version),
        remove=[keys] if isinstance(keys, str) else keys,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    link.call(link.registry.ChangeTags, request)


def _number(model: str, version: VersionLike | None) -> int:
    # The contract's 0 is the model itself.
    return 0 if version is None else version_number(model, version)
