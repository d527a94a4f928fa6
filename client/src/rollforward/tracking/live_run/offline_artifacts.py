"""Artifacts of a run: logged at once, or through its journal while the service is unreachable."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward._artifacts.manifests import build_tree, manifest_digest
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._journal import records
from rollforward._journal.directory import artifact_folder
from rollforward._journal.records import Count
from rollforward._transport.connection import new_request_id
from rollforward.errors import InvalidRequest, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from rollforward._journal.writer import Writer
    from rollforward._transport.connection import Connection

ONE_CALL: Final = Count(0, 0, 1)


def log_artifact(
    connection: Connection,
    writer: Writer,
    request: v1.LogArtifactRequest,
    path: str | PathLike[str],
    *,
    only_file: bool,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Log a directory, or one file, under the path in the request, and return its digest.

    Raises as artifacts.upload; Unavailable only if there is no journal.
    """
    request.request_id = new_request_id()
    if not writer.is_blocked:
        try:
            request.digest, _ = ArtifactTrees(connection).upload(path, only_file=only_file, progress=progress)
            connection.call(connection.tracking.LogArtifact, request)
        except (Unavailable, NotFound) as error:
            # The start of the run may not be delivered yet.
            if writer.folder is None or (isinstance(error, NotFound) and error.reason != "RUN_NOT_FOUND"):
                raise
        else:
            return request.digest
    if writer.folder is None:
        raise Unavailable("NOT_DELIVERED", "cannot upload: the service is unreachable, and the run has no journal")
    digest = _copy_tree(path, artifact_folder(writer.folder, request.request_id), only_file=only_file)
    writer.add(records.artifact(request), ONE_CALL)
    return digest


def _copy_tree(path: str | PathLike[str], target: Path, *, only_file: bool) -> str:
    """Copy a tree as an upload would send it, completely or not at all; return its digest."""
    source = Path(path)
    if only_file and not source.is_file():
        raise InvalidRequest("NOT_A_FILE", f"not a file: {str(source)!r}", {"path": str(source)})
    tree = build_tree(source)
    try:
        for file in tree.manifest.files:
            place = target.joinpath(*file.path.split("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree.sources[file.digest], place)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return manifest_digest(tree.manifest)
