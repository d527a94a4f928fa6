"""The blob store that a setting names."""

from __future__ import annotations

from pathlib import Path

from services.artifacts.directory_store import LocalBlobs
from services.artifacts.objects import place_of
from services.artifacts.s3.bucket import Bucket
from services.artifacts.s3.store import S3Blobs
from services.artifacts.store import BlobStore
from services.artifacts.uploads import Spool


def open_blob_store(url: str, spool: Path, *, direct: bool = True) -> BlobStore:
    """Return the store at a directory (made if missing) or in a bucket; see `place_of`.

    What is uploaded to a bucket waits in `spool` until it is verified; a directory has a place of its own for that.
    Raises `ValueError` for another scheme, `OSError` for an unusable directory.
    """
    place = place_of(url)
    return open_directory(place) if isinstance(place, Path) else S3Blobs(Bucket(place), Spool(spool), direct=direct)


def open_directory(root: Path) -> LocalBlobs:
    """Return the store in a directory, which is made if it is missing. Raises `OSError` if it cannot be used."""
    uploads = Spool(root / "tmp")
    uploads.prepare()
    return LocalBlobs(root, uploads)
