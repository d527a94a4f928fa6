"""Artifacts: upload trees of files, and download them with every byte verified."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rollforward import v1
from rollforward.connection import Connection, current
from rollforward.errors import InternalError, InvalidRequest
from rollforward.manifests import CHUNK_BYTES, Tree, build_tree, check_manifest, manifest_digest
from rollforward.references import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

Progress = Callable[[int, int], None]
"""Called as progress(done, total), in bytes, one call at a time, from the threads that transfer."""

_THREADS: Final = 4
_DIGESTS_PER_CALL: Final = 10_000
# A transfer may take a call's time, and what it would take at this many bytes a second.
_SLOWEST: Final = 256 * 1024


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
    tree = build_tree(source)
    _upload_blobs(link, tree, progress)
    request = v1.CreateManifestRequest(manifest=tree.manifest)
    return link.call(link.artifacts.CreateManifest, request).digest, source.name


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
        raise _mismatch(digest)
    check_manifest(manifest)
    return manifest


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


class _Transfer:
    """What the threads of one transfer share: the bytes done so far, and whether to stop."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.stopped = threading.Event()
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)

    def run(self, work: Callable[[str], None], digests: Iterable[str]) -> None:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="rollforward-transfer") as pool:
            futures = [pool.submit(work, digest) for digest in digests]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                # On Ctrl-C too: what has not begun does not begin, and what has stops at its next chunk.
                self.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _upload_blobs(link: Connection, tree: Tree, progress: Progress | None) -> None:
    sizes = {file.digest: file.size_bytes for file in tree.manifest.files}
    missing = _find_missing(link, list(sizes))
    transfer = _Transfer(sum(sizes.values()), progress)
    transfer.add(sum(size for digest, size in sizes.items() if digest not in missing))
    transfer.run(lambda digest: _upload_blob(link, digest, tree.sources[digest], sizes[digest], transfer), missing)


def _find_missing(link: Connection, digests: Sequence[str]) -> dict[str, None]:
    missing: dict[str, None] = {}
    for start in range(0, len(digests), _DIGESTS_PER_CALL):
        request = v1.FindMissingBlobsRequest(digests=digests[start : start + _DIGESTS_PER_CALL])
        missing.update(dict.fromkeys(link.call(link.artifacts.FindMissingBlobs, request).missing))
    return missing


def _upload_blob(link: Connection, digest: str, source: Path, size: int, transfer: _Transfer) -> None:
    sent = 0

    def parts(file: BinaryIO) -> Iterator[v1.UploadBlobRequest]:
        nonlocal sent
        yield v1.UploadBlobRequest(digest=digest)
        while not transfer.stopped.is_set() and (chunk := file.read(CHUNK_BYTES)):
            yield v1.UploadBlobRequest(chunk=chunk)
            sent += len(chunk)
            transfer.add(len(chunk))

    def attempt(seconds: float | None) -> v1.UploadBlobResponse:
        nonlocal sent
        if sent:
            transfer.add(-sent)
        sent = 0
        with source.open("rb") as file:
            return link.artifacts.UploadBlob(parts(file), timeout=seconds, metadata=link.metadata())

    link.retry(attempt, timeout=_allowance(link, size))


def _download_blobs(manifest: v1.Manifest, tree: Path, link: Connection, progress: Progress | None) -> None:
    paths: dict[str, list[Path]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for file in manifest.files:
        paths[file.digest].append(tree.joinpath(*file.path.split("/")))
        sizes[file.digest] = file.size_bytes
    for place in {path.parent for places in paths.values() for path in places}:
        place.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(sum(sizes.values()), progress)

    def receive(digest: str) -> None:
        first, *others = paths[digest]
        _download_blob(link, digest, first, sizes[digest], transfer)
        for other in others:
            _copy(first, other)

    transfer.run(receive, paths)


def _download_blob(link: Connection, digest: str, target: Path, size: int, transfer: _Transfer) -> None:
    # Never over a file that is there: where case does not count, another of the tree could have this name.
    target.touch(exist_ok=False)
    found = hashlib.sha256()
    # What arrived stays: the next attempt goes on from there.
    with target.open("wb") as file:

        def attempt(seconds: float | None) -> None:
            for chunk in _chunks(link, digest, file.tell(), seconds):
                if file.tell() + len(chunk) > size:
                    raise _mismatch(digest)
                if transfer.stopped.is_set():
                    return
                file.write(chunk)
                found.update(chunk)
                transfer.add(len(chunk))

        link.retry(attempt, timeout=_allowance(link, size))
        if file.tell() != size or f"sha256:{found.hexdigest()}" != digest:
            raise _mismatch(digest)


def _chunks(link: Connection, digest: str, offset: int, seconds: float | None) -> Iterator[bytes]:
    request = v1.DownloadBlobRequest(digest=digest, offset=offset)
    call = link.artifacts.DownloadBlob(request, timeout=seconds, metadata=link.metadata())
    try:
        for response in call:
            yield response.chunk
    finally:
        call.cancel()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy, CHUNK_BYTES)


def _allowance(link: Connection, size: int) -> float:
    return link.timeout + size / _SLOWEST


def _mismatch(digest: str) -> InternalError:
    return InternalError(
        "DIGEST_MISMATCH", f"what is stored as {digest} is not what that digest names", {"digest": digest}
    )
