"""Artifacts: upload trees of files, and download them with every byte verified."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rollforward import transfers_grpc, transfers_http, v1
from rollforward.connection import Connection, current
from rollforward.errors import InvalidRequest, PreconditionFailed
from rollforward.manifests import CHUNK_BYTES, Tree, build_tree, check_manifest, manifest_digest
from rollforward.references import is_digest
from rollforward.transfers import RESUMED, Transfer, mismatch
from rollforward.transfers_grpc import BlobUpload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

Progress = Callable[[int, int], None]
"""Called as progress(done, total), in bytes, one call at a time, from the threads that transfer."""

_DIGESTS_PER_CALL: Final = 10_000


def upload(
    path: str | PathLike[str],
    *,
    only_file: bool = False,
    progress: Progress | None = None,
    connection: Connection | None = None,
) -> tuple[str, str]:
    """Store a directory, or one file, as an artifact; blobs that are stored already are not sent again.

    Returns the manifest's digest, and the last name of the path. With `only_file` a directory is refused.
    Raises InvalidRequest (see manifests.build_tree; DIGEST_MISMATCH when a file changed meanwhile), OSError,
    Unavailable.
    """
    source = Path(path)
    if only_file and not source.is_file():
        raise InvalidRequest("NOT_A_FILE", f"{str(source)!r} is not a file", {"path": str(source)})
    link = current(connection)
    return _store(link, build_tree(source), progress), source.name


def get_manifest(digest: str, *, connection: Connection | None = None) -> v1.Manifest:
    """The manifest of an artifact, verified against its digest.

    Raises InvalidRequest (INVALID_DIGEST), NotFound (ARTIFACT_NOT_FOUND), InternalError (DIGEST_MISMATCH) when it is
    damaged.
    """
    if not is_digest(digest):
        raise InvalidRequest("INVALID_DIGEST", f"{digest!r} is not a digest", {"digest": digest})
    link = current(connection)
    manifest = link.call(link.artifacts.GetManifest, v1.GetManifestRequest(digest=digest)).manifest
    if manifest_digest(manifest) != digest:
        raise mismatch(digest)
    check_manifest(manifest)
    return manifest


def collect_garbage(
    *, dry_run: bool = False, min_age: int | None = None, connection: Connection | None = None
) -> Iterator[v1.CollectGarbageResponse]:
    """Set aside the blobs that nothing names, and remove those set aside long enough ago; yields how far it is.

    What is younger than `min_age` seconds stays, a day unless it is given: no upload may take longer. With `dry_run` it
    only says what would be done. Raises, while it is iterated, InvalidRequest (INVALID_AGE), PreconditionFailed
    (COLLECTION_RUNNING, ARTIFACT_LOST), Unavailable.
    """
    if min_age is not None and min_age < 1:
        raise InvalidRequest("INVALID_AGE", f"an age is at least a second, not {min_age}")
    link = current(connection)
    request = v1.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age or 0)
    yield from link.stream(link.artifacts.CollectGarbage, request)


def download_tree(manifest: v1.Manifest, target: Path, link: Connection, progress: Progress | None) -> None:
    """Write a manifest's files below `target`, a path at which there is nothing or an empty directory.

    The tree appears there complete and verified, or not at all. Raises InvalidRequest (INVALID_PATH,
    DESTINATION_NOT_EMPTY), NotFound (BLOB_NOT_FOUND), InternalError (DIGEST_MISMATCH), OSError, Unavailable.
    """
    check_manifest(manifest)
    refuse_occupied(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name[:100]}.", dir=target.parent) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        _download_blobs(manifest, tree, link, progress)
        # Renaming replaces an empty directory, and fails if somebody filled it meanwhile.
        tree.replace(target)


def refuse_occupied(target: Path) -> None:
    """Refuse a destination that holds something. Raises InvalidRequest (DESTINATION_NOT_EMPTY)."""
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        message = f"{str(target)!r} is not an empty directory"
        raise InvalidRequest("DESTINATION_NOT_EMPTY", message, {"path": str(target)})


def hash_blob(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _store(link: Connection, tree: Tree, progress: Progress | None) -> str:
    """Send what is missing, and the manifest; its digest."""
    request = v1.CreateManifestRequest(manifest=tree.manifest)
    _upload_blobs(link, tree, progress)
    try:
        return link.call(link.artifacts.CreateManifest, request).digest
    except PreconditionFailed as error:
        if error.reason != "BLOB_MISSING":
            raise
    # What was there when a very long upload began was collected as garbage before it ended.
    _upload_blobs(link, tree, progress)
    return link.call(link.artifacts.CreateManifest, request).digest


def _upload_blobs(link: Connection, tree: Tree, progress: Progress | None) -> None:
    sizes = {file.digest: file.size_bytes for file in tree.manifest.files}
    missing = _find_missing(link, list(sizes))
    transfer = Transfer(link, sum(sizes.values()), progress)
    transfer.add(sum(size for digest, size in sizes.items() if digest not in missing))
    transfer.run(lambda digest: _upload_blob(transfer, digest, tree.sources[digest], sizes[digest]), missing)


def _find_missing(link: Connection, digests: Sequence[str]) -> dict[str, None]:
    missing: dict[str, None] = {}
    for start in range(0, len(digests), _DIGESTS_PER_CALL):
        request = v1.FindMissingBlobsRequest(digests=digests[start : start + _DIGESTS_PER_CALL])
        missing.update(dict.fromkeys(link.call(link.artifacts.FindMissingBlobs, request).missing))
    return missing


def _upload_blob(transfer: Transfer, digest: str, source: Path, size: int) -> None:
    if size < RESUMED or not transfers_http.upload(transfer, digest, source, size):
        BlobUpload(transfer, digest, source, size).run()


def _download_blobs(manifest: v1.Manifest, tree: Path, link: Connection, progress: Progress | None) -> None:
    paths: dict[str, list[Path]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for file in manifest.files:
        paths[file.digest].append(tree.joinpath(*file.path.split("/")))
        sizes[file.digest] = file.size_bytes
    for place in {path.parent for places in paths.values() for path in places}:
        place.mkdir(parents=True, exist_ok=True)
    transfer = Transfer(link, sum(sizes.values()), progress)

    def receive(digest: str) -> None:
        first, *others = paths[digest]
        # Never over a file that is there: where case does not count, another of the tree could have this name.
        with first.open("xb") as file:
            _BlobDownload(transfer, digest, sizes[digest], file).run()
        for other in others:
            _copy(first, other)

    transfer.run(receive, paths)


class _BlobDownload:
    """The download of one blob into a file; what arrived stays, and the next attempt goes on from there."""

    def __init__(self, transfer: Transfer, digest: str, size: int, file: BinaryIO) -> None:
        self._transfer = transfer
        self._digest = digest
        self._size = size
        self._file = file
        self._sha256 = hashlib.sha256()

    def run(self) -> None:
        if self._size >= RESUMED and self._transfer.direct:
            self._take(transfers_http.download(self._transfer, self._digest, 0))
        if self._file.tell() < self._size or not self._size:
            self._transfer.link.retry(self._attempt, timeout=self._transfer.allowance(self._size))
        if self._file.tell() != self._size or f"sha256:{self._sha256.hexdigest()}" != self._digest:
            raise mismatch(self._digest)

    def _attempt(self, seconds: float | None) -> None:
        self._take(transfers_grpc.download(self._transfer, self._digest, self._file.tell(), seconds))

    def _take(self, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            if self._file.tell() + len(chunk) > self._size:
                raise mismatch(self._digest)
            self._file.write(chunk)
            self._sha256.update(chunk)
            self._transfer.add(len(chunk))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy, CHUNK_BYTES)
