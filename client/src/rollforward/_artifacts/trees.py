"""Artifacts: upload trees of files, and download them with every byte verified."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rollforward import v1
from rollforward._artifacts import grpc_transfer, http_transfer
from rollforward._artifacts.grpc_transfer import BlobUpload
from rollforward._artifacts.manifests import CHUNK_BYTES, LocalTree, build_tree, check_manifest, manifest_digest
from rollforward._artifacts.partial_download import is_staging_directory, staging_directory
from rollforward._artifacts.portable_names import check_writable
from rollforward._artifacts.transfer import RESUMABLE_BYTES, Transfer, mismatch
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward.errors import InvalidRequest, PreconditionFailed
from rollforward.references import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

Progress = Callable[[int, int], None]
"""A function that is called with the bytes done and in all, by one of the transferring threads at a time."""

# A remote store checks blobs one by one.
_DIGESTS_PER_CALL: Final = 1_000
_MIN_RATE: Final = 250  # blobs per second


class ArtifactTrees(Resource):
    """Stored trees of files."""

    def upload(
        self,
        path: str | PathLike[str],
        *,
        only_file: bool = False,
        progress: Progress | None = None,
    ) -> tuple[str, str]:
        """Store a directory, or one file, as an artifact; stored blobs are not sent again.

        Returns the manifest's digest, and the path's last name. With `only_file` a directory is an error.

        Raises:
            InvalidRequest: See manifests.build_tree; DIGEST_MISMATCH if a file changed meanwhile.
            OSError: See the message.
            Unavailable: No result within the timeout.
        """
        source = Path(path)
        if only_file and not source.is_file():
            raise InvalidRequest("NOT_A_FILE", f"not a file: {str(source)!r}", {"path": str(source)})
        return _store(self._connection, build_tree(source), progress), source.name

    def get_manifest(self, digest: str) -> v1.Manifest:
        """Return the manifest of an artifact, verified against its digest.

        Raises:
            InvalidRequest: INVALID_DIGEST.
            NotFound: ARTIFACT_NOT_FOUND.
            InternalError: DIGEST_MISMATCH if it is damaged.
        """
        if not is_digest(digest):
            message = f"invalid digest {digest!r}: expected 'sha256:' and 64 lower-case hex digits"
            raise InvalidRequest("INVALID_DIGEST", message, {"digest": digest})
        manifest = self._connection.call(
            self._connection.artifacts.GetManifest, v1.GetManifestRequest(digest=digest)
        ).manifest
        if manifest_digest(manifest) != digest:
            raise mismatch(digest)
        check_manifest(manifest)
        return manifest

    def collect_garbage(
        self, *, dry_run: bool = False, min_age: int | None = None
    ) -> Iterator[v1.CollectGarbageResponse]:
        """Move unreferenced blobs to the trash, remove old trash, and yield the progress.

        Blobs younger than `min_age` seconds stay, by default a day: no upload may take longer. With `dry_run` nothing
        is changed. Raises, during iteration, InvalidRequest (INVALID_AGE), PreconditionFailed (COLLECTION_RUNNING,
        ARTIFACT_LOST), Unavailable.
        """
        if min_age is not None and min_age < 1:
            raise InvalidRequest("INVALID_AGE", f"min_age must be >= 1 second, got {min_age}")
        request = v1.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age or 0)
        yield from self._connection.stream(self._connection.artifacts.CollectGarbage, request)


def download_tree(manifest: v1.Manifest, target: Path, connection: Connection, progress: Progress | None) -> None:
    """Write a manifest's files below `target`, which must be missing or an empty directory.

    The tree appears complete and verified, or not at all. A download that failed before is resumed. Raises
    InvalidRequest (INVALID_PATH, DESTINATION_NOT_EMPTY), and as receive_tree.
    """
    check_manifest(manifest)
    check_unoccupied(target)
    stays = _is_fixed_directory(target)
    with staging_directory(manifest_digest(manifest), target / "tree" if stays else target) as scratch:
        tree = scratch / "tree"
        receive_tree(manifest, tree, connection, progress)
        if not stays:
            # Renaming replaces an empty directory, and fails if another process filled it meanwhile.
            tree.replace(target)
            return
        check_unoccupied(target)
        for entry in tree.iterdir():
            entry.rename(target / entry.name)


def receive_tree(manifest: v1.Manifest, tree: Path, connection: Connection, progress: Progress | None) -> None:
    """Complete and verify the files of a checked manifest below `tree`, where nothing else is.

    Raises:
        InvalidRequest: INVALID_PATH, on Windows, for names that Windows does not accept.
        NotFound: BLOB_NOT_FOUND.
        InternalError: DIGEST_MISMATCH.
        OSError: See the message.
        Unavailable: No result within the timeout.
    """
    check_writable([file.path for file in manifest.files])
    paths: dict[str, list[Path]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for file in manifest.files:
        paths[file.digest].append(tree.joinpath(*file.path.split("/")))
        sizes[file.digest] = file.size_bytes
    _create_files([path for places in paths.values() for path in places])
    transfer = Transfer(connection, sum(sizes.values()), progress)

    def receive(digest: str) -> None:
        first, *others = paths[digest]
        with first.open("r+b") as file:
            _BlobDownload(transfer, digest, sizes[digest], file).run()
        for other in others:
            shutil.copyfile(first, other)

    transfer.run(receive, paths)


def check_unoccupied(target: Path) -> None:
    """Check that a destination is missing or an empty directory.

    Raises:
        InvalidRequest: DESTINATION_NOT_EMPTY.
    """
    if target.is_symlink() or target.is_file() or (target.is_dir() and not _is_empty(target)):
        message = f"destination is not an empty directory: {str(target)!r}"
        raise InvalidRequest("DESTINATION_NOT_EMPTY", message, {"path": str(target)})


def _is_empty(folder: Path) -> bool:
    parts = _is_fixed_directory(folder)
    return not [entry for entry in folder.iterdir() if not (parts and is_staging_directory(entry))]


def _is_fixed_directory(target: Path) -> bool:
    """Return whether a directory can only be filled, not replaced: a mount point or the working directory."""
    return target.is_dir() and (os.path.ismount(target) or target.samefile("."))


def hash_blob(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _store(connection: Connection, tree: LocalTree, progress: Progress | None) -> str:
    """Send the missing blobs and the manifest; return its digest."""
    _upload_blobs(connection, tree, progress)
    try:
        return _create_manifest(connection, tree.manifest)
    except PreconditionFailed as error:
        if error.reason != "BLOB_MISSING":
            raise
    # During a very long upload, garbage collection may have removed a blob that was stored when it began.
    _upload_blobs(connection, tree, progress)
    return _create_manifest(connection, tree.manifest)


def _create_manifest(connection: Connection, manifest: v1.Manifest) -> str:
    request = v1.CreateManifestRequest(manifest=manifest)
    timeout = connection.timeout + len(manifest.files) / _MIN_RATE
    return connection.call(connection.artifacts.CreateManifest, request, timeout=timeout).digest


def _upload_blobs(connection: Connection, tree: LocalTree, progress: Progress | None) -> None:
    sizes = {file.digest: file.size_bytes for file in tree.manifest.files}
    missing = _find_missing(connection, list(sizes))
    transfer = Transfer(connection, sum(sizes.values()), progress)
    transfer.add(sum(size for digest, size in sizes.items() if digest not in missing))
    transfer.run(lambda digest: _upload_blob(transfer, digest, tree.sources[digest], sizes[digest]), missing)


def _find_missing(connection: Connection, digests: Sequence[str]) -> dict[str, None]:
    missing: dict[str, None] = {}
    for start in range(0, len(digests), _DIGESTS_PER_CALL):
        request = v1.FindMissingBlobsRequest(digests=digests[start : start + _DIGESTS_PER_CALL])
        missing.update(dict.fromkeys(connection.call(connection.artifacts.FindMissingBlobs, request).missing))
    return missing


def _upload_blob(transfer: Transfer, digest: str, source: Path, size: int) -> None:
    if size < RESUMABLE_BYTES or not http_transfer.upload(transfer, digest, source, size):
        BlobUpload(transfer, digest, source, size).run()


def _create_files(paths: Sequence[Path]) -> None:
    """Create missing files. Raises FileExistsError if two of them are the same file."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    files: set[tuple[int, int]] = set()
    for path in paths:
        with path.open("ab") as file:
            status = os.fstat(file.fileno())
        # A file system that ignores case would write one file over another.
        if (status.st_dev, status.st_ino) in files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        files.add((status.st_dev, status.st_ino))


class _BlobDownload:
    """The download of one blob into a file, which keeps the received bytes for the next attempt."""

    def __init__(self, transfer: Transfer, digest: str, size: int, file: BinaryIO) -> None:
        self._transfer = transfer
        self._digest = digest
        self._size = size
        self._file = file
        self._sha256 = hashlib.sha256()

    def run(self) -> None:
        """Complete the file. Raises as receive_tree."""
        self._hash_existing()
        if self._size >= RESUMABLE_BYTES and self._transfer.direct and self._downloaded < self._size:
            self._receive(http_transfer.download(self._transfer, self._digest, self._downloaded))
        only_from_service = not self._downloaded
        self._fetch()
        if not self._is_verified() and not only_from_service:
            self._restart()
            self._fetch()
        if not self._is_verified():
            self._restart()
            raise mismatch(self._digest)

    @property
    def _downloaded(self) -> int:
        return self._file.tell()

    def _hash_existing(self) -> None:
        while chunk := self._file.read(CHUNK_BYTES):
            self._sha256.update(chunk)
        self._transfer.add(self._downloaded)

    def _fetch(self) -> None:
        if self._downloaded < self._size:
            self._transfer.retry(self._attempt, self._size - self._downloaded, lambda: self._downloaded)

    def _attempt(self, seconds: float | None) -> None:
        self._receive(grpc_transfer.download(self._transfer, self._digest, self._downloaded, seconds))

    def _receive(self, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            self._file.write(chunk)
            self._sha256.update(chunk)
            self._transfer.add(len(chunk))
            if self._downloaded > self._size:
                return

    def _is_verified(self) -> bool:
        return self._downloaded == self._size and f"sha256:{self._sha256.hexdigest()}" == self._digest

    def _restart(self) -> None:
        self._transfer.add(-self._downloaded)
        self._file.seek(0)
        self._file.truncate()
        self._sha256 = hashlib.sha256()


upload = default_client_function("upload", ArtifactTrees, ArtifactTrees.upload)
get_manifest = default_client_function("get_manifest", ArtifactTrees, ArtifactTrees.get_manifest)
collect_garbage = default_client_function("collect_garbage", ArtifactTrees, ArtifactTrees.collect_garbage)
