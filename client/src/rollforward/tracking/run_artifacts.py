"""The files of a run's artifacts at a path, which need not be that of an artifact."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rollforward import v1
from rollforward._artifacts.manifests import manifest_digest, part_of
from rollforward._artifacts.trees import ArtifactTrees
from rollforward.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollforward._transport.connection import Connection


class RunTree(NamedTuple):
    """A tree of files."""

    digest: str
    manifest: v1.Manifest | None
    """None if it was not needed to find the digest."""


def find_tree(connection: Connection, run_id: str, path: str) -> RunTree:
    """Find the files of a run at a path.

    In this order: the artifact with the path; the part at the path of the artifact with the longest path above it,
    whose files keep their paths; all artifacts below the path, as one tree.

    Raises:
        NotFound: RUN_NOT_FOUND, ARTIFACT_NOT_FOUND.
        Unavailable: No result within the timeout.
    """
    request = v1.GetRunRequest(run_id=run_id, without_metrics=True)
    run = connection.call(connection.tracking.GetRun, request).run
    artifacts = {artifact.path: artifact.digest for artifact in run.artifacts}
    if path in artifacts:
        return RunTree(artifacts[path], None)
    manifest = _part_of_one(connection, artifacts, path) or _all_below(connection, artifacts, path)
    if not manifest.files:
        existing = ", ".join(repr(name) for name in sorted(artifacts)[:20]) or "none"
        message = f"run {run_id} has no artifact at {path!r}; its artifacts: {existing}"
        raise NotFound("ARTIFACT_NOT_FOUND", message, {"run_id": run_id, "path": path})
    return RunTree(manifest_digest(manifest), manifest)


def _part_of_one(connection: Connection, artifacts: Mapping[str, str], path: str) -> v1.Manifest | None:
    above = (name for name in artifacts if not name or path.startswith(f"{name}/"))
    for name in sorted(above, key=len, reverse=True):
        part = part_of(
            ArtifactTrees(connection).get_manifest(artifacts[name]), path.removeprefix(name).removeprefix("/")
        )
        if part.files:
            return part
    return None


def _all_below(connection: Connection, artifacts: Mapping[str, str], path: str) -> v1.Manifest:
    tree: dict[str, v1.ManifestFile] = {}
    for name in sorted(name for name in artifacts if not path or name.startswith(f"{path}/")):
        place = name.removeprefix(path).removeprefix("/")
        # If two artifacts have a file at the same path, the artifact with the longer path wins.
        tree |= _files_at(ArtifactTrees(connection).get_manifest(artifacts[name]), place)
    manifest = v1.Manifest()
    for place, file in sorted(tree.items()):
        manifest.files.add(path=place, size_bytes=file.size_bytes, digest=file.digest)
    return manifest


def _files_at(manifest: v1.Manifest, place: str) -> dict[str, v1.ManifestFile]:
    if [file.path for file in manifest.files] == [PurePosixPath(place).name]:
        # A file that was logged alone: the artifact's path ends with the file's name.
        return {place: manifest.files[0]}
    return {f"{place}/{file.path}": file for file in manifest.files}
