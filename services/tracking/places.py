"""Opens the store of blobs that a setting names."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from obstore.store import S3Store

from services.tracking.blobs import BlobStore
from services.tracking.local_blobs import LocalBlobs
from services.tracking.s3_blobs import S3Blobs
from services.tracking.s3_bucket import Bucket
from services.tracking.uploads import Spool


def open_blob_store(url: str, spool: Path, *, direct: bool = True) -> BlobStore:
    """The store at a directory's path or `file:` URL (made if missing) or at `s3://BUCKET/PREFIX`.

    S3 reads its endpoint and credentials from the usual AWS_* variables; plain HTTP is for an AWS_ENDPOINT_URL of this
    machine, or if AWS_ALLOW_HTTP says so. What is uploaded to it waits in `spool` until it is verified; a directory has
    a place of its own for that. Raises `ValueError` for another scheme, `OSError` for an unusable directory.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return S3Blobs(Bucket(_bucket(url)), Spool(spool), direct=direct)
    if "://" in url and (parts.scheme != "file" or parts.netloc not in {"", "localhost"}):
        raise ValueError(f"{parts.scheme}://{parts.netloc} is no place for blobs: use a path or s3://BUCKET/PREFIX")
    root = Path(unquote(parts.path) if parts.scheme == "file" else url).absolute()
    return open_directory(root)


def open_directory(root: Path) -> LocalBlobs:
    """The store in a directory, which is made if it is missing. Raises `OSError` if it cannot be used."""
    uploads = Spool(root / "tmp")
    uploads.prepare()
    return LocalBlobs(root, uploads)


def _bucket(url: str) -> S3Store:
    return S3Store.from_url(
        url,
        client_options={"allow_http": True} if _endpoint_is_here() else {},  # {} leaves it to AWS_ALLOW_HTTP
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


def _endpoint_is_here() -> bool:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
