"""Downloads of artifacts, and a cache of artifacts by digest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from rollforward._artifacts.manifests import canonical, check_manifest, manifest_digest, parse_canonical, part_of
from rollforward._artifacts.partial_download import is_staging_directory, remove, staging_directory
from rollforward._artifacts.trees import (
    ArtifactTrees,
    Progress,
    check_unoccupied,
    download_tree,
    hash_blob,
    receive_tree,
)
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward.errors import InvalidRequest, NotFound, RollforwardError
from rollforward.references import (
    AliasReference,
    DigestReference,
    RunReference,
    VersionReference,
    parse_artifact,
)
from rollforward.registry.assignments import Assignments
from rollforward.registry.versions import Versions
from rollforward.tracking.run_artifacts import RunTree, find_tree

if TYPE_CHECKING:
    from os import PathLike

    from rollforward import v1


class Artifacts(ArtifactTrees):
    """Artifacts of a service: upload and download trees of files."""

    def download(
        self,
        reference: str,
        dst: str | PathLike[str] | None = None,
        *,
        path: str = "",
        progress: Progress | None = None,
    ) -> Path:
        """Download an artifact, verify every byte, and return the directory that holds its files.

        Args:
            reference: "models:/NAME@ALIAS", "models:/NAME/VERSION", "runs:/RUN_ID/PATH" or a digest. A run's path is
                that of an artifact, of a file or directory in one, or of a directory that contains several artifacts.
            dst: The destination: missing, or an empty directory. By default the artifact goes to the shared cache,
                $XDG_CACHE_HOME/rollforward or ~/.cache/rollforward, where nobody may write; a cached digest needs no
                service.
            path: A file or directory to download alone; its files keep their paths.
            progress: Called with the bytes done and in all.


        Raises:
            InvalidRequest: INVALID_REFERENCE, DESTINATION_NOT_EMPTY.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND, RUN_NOT_FOUND, ARTIFACT_NOT_FOUND,
                PATH_NOT_FOUND.
            InternalError: DIGEST_MISMATCH for damaged bytes.
            Unavailable: No result within the timeout.
            OSError: See the message.
        """
        if dst is not None:
            check_unoccupied(Path(dst))
        tree = _resolve(reference, self._connection)
        if dst is None and not path:
            return _cached(tree.digest, self._connection, progress, tree.manifest)
        manifest = _part(tree, path, self._connection)
        if dst is None:
            return _cached(manifest_digest(manifest), self._connection, progress, manifest)
        try:
            download_tree(manifest, Path(dst), self._connection, progress)
        except OSError as error:
            raise _about_target(error, Path(dst)) from error
        return Path(dst)

    def list_files(self, reference: str, path: str = "") -> list[v1.ManifestFile]:
        """List the files of an artifact by path, each with its size and digest.

        With `path`, list only that file, or the files below that directory.

        Raises:
            InvalidRequest: INVALID_REFERENCE.
            NotFound: As download.
            Unavailable: No result within the timeout.
        """
        return list(_part(_resolve(reference, self._connection), path, self._connection).files)


def _about_target(error: OSError, target: Path) -> OSError:
    """Return an error that names the target in place of its staging directory."""
    if error.filename is None or not any(
        is_staging_directory(part) for part in (Path(error.filename), *Path(error.filename).parents)
    ):
        return error
    return type(error)(error.errno, error.strerror, str(target))


def _part(tree: RunTree, path: str, connection: Connection) -> v1.Manifest:
    part = part_of(tree.manifest or ArtifactTrees(connection).get_manifest(tree.digest), path)
    if not part.files:
        message = f"no files at {path!r} in artifact {tree.digest}"
        raise NotFound("PATH_NOT_FOUND", message, {"digest": tree.digest, "path": path})
    return part


def _resolve(reference: str, connection: Connection) -> RunTree:
    named = parse_artifact(reference)
    match named:
        case AliasReference(model, alias):
            return RunTree(_alias_digest(f"{model}@{alias}", connection), None)
        case VersionReference(model, version):
            return RunTree(Versions(connection).get(model, version).digest, None)
        case RunReference(run_id, path):
            return find_tree(connection, run_id, path)
        case DigestReference(digest):
            return RunTree(digest, None)
        case _:
            assert_never(named)


def _alias_digest(reference: str, connection: Connection) -> str:
    alias = Assignments(connection).resolve(reference)
    if not alias.digest:
        message = f"alias is not set: {reference}"
        raise NotFound("ALIAS_NOT_FOUND", message, {"model": alias.model, "alias": alias.alias})
    return alias.digest


def _cached(
    digest: str, connection: Connection, progress: Progress | None, manifest: v1.Manifest | None = None
) -> Path:
    entry = _cache() / digest.removeprefix("sha256:")
    if entry.is_dir():
        if _is_whole(entry, digest):
            return entry / "files"
        remove(entry)
    _fill(entry, manifest or ArtifactTrees(connection).get_manifest(digest), connection, progress)
    return entry / "files"


def _fill(entry: Path, manifest: v1.Manifest, connection: Connection, progress: Progress | None) -> None:
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with staging_directory(manifest_digest(manifest), entry) as scratch:
        unpublished = scratch / "entry"
        receive_tree(manifest, unpublished / "files", connection, progress)
        (unpublished / "manifest.json").write_bytes(canonical(manifest))
        try:
            unpublished.rename(entry)
        except OSError:
            # Another process was first, with the same files.
            if not _is_whole(entry, manifest_digest(manifest)):
                raise


def _is_whole(entry: Path, digest: str) -> bool:
    # Files in the cache may have been changed, but the entry's name guarantees their digest.
    try:
        manifest = parse_canonical((entry / "manifest.json").read_bytes())
        check_manifest(manifest)
        files = ((entry / "files").joinpath(*file.path.split("/")) for file in manifest.files)
        same = all(hash_blob(path) == file.digest for path, file in zip(files, manifest.files, strict=True))
    except (OSError, ValueError, KeyError, TypeError, RollforwardError):
        return False
    return same and manifest_digest(manifest) == digest


def _cache() -> Path:
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative path.
    if configured.is_absolute():
        return configured / "rollforward"
    try:
        return Path.home() / ".cache" / "rollforward"
    except RuntimeError as error:
        raise InvalidRequest(
            "NO_CACHE", "no home directory for the cache: set XDG_CACHE_HOME, or pass a destination"
        ) from error


download = default_client_function("download", Artifacts, Artifacts.download)
list_files = default_client_function("list_files", Artifacts, Artifacts.list_files)
