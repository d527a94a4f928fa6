"""Named objects in the directory or S3 bucket that also has the artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from eventstore import StoreUnavailable
from services.rpc.addresses import is_loopback

PART = 8 * 1024 * 1024
"""Bytes that go up or come down in one request."""

_ABANDONED = 24 * 60 * 60  # seconds since anything was written to an unfinished file


class ObjectPlace:
    """Objects by name; see `eventstore.projections.snapshots.store.Objects`.

    The place is opened when it is first needed, and a directory made when something is put there: a process may run
    that has none it can use.
    """

    def __init__(self, place: S3Store | Path) -> None:
        self._place = place

    @property
    def _is_empty(self) -> bool:
        """Whether it is a directory that nobody has made yet."""
        return isinstance(self._place, Path) and not self._place.exists()

    @cached_property
    def _store(self) -> ObjectStore:
        if isinstance(self._place, S3Store):
            return self._place
        self._place.mkdir(parents=True, exist_ok=True)
        _tidy(self._place / "snapshots")
        return LocalStore(self._place)

    def names(self, under: str) -> list[str]:
        """Return the names below a folder."""
        if self._is_empty:
            return []
        with _in_reach():
            return [found["path"] for batch in obstore.list(self._store, under) for found in batch]

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return the sizes of the objects below a folder, or of all, by name."""
        if self._is_empty:
            return {}
        with _in_reach():
            batches = obstore.list(self._store, under or None)
            return {found["path"]: found["size"] for batch in batches for found in batch}

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        """Keep an object, whole or not at all, in parts that go up as they come."""
        with _in_reach():
            obstore.put(self._store, name, pieces, use_multipart=True, chunk_size=PART, max_concurrency=2)

    def get(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an object, a request for each part: a slow reader runs into no request's timeout."""
        with _in_reach():
            try:
                size = obstore.head(self._store, name)["size"]
            except FileNotFoundError:
                raise LookupError(f"no object has the name {name}") from None
        for start in range(0, size, PART):
            with _in_reach():
                part = obstore.get_range(self._store, name, start=start, end=min(start + PART, size))
            yield bytes(part)

    def delete(self, name: str) -> None:
        """Drop an object, if it is there."""
        with _in_reach(), suppress(FileNotFoundError):
            obstore.delete(self._store, name)


def open_objects(url: str) -> ObjectPlace:
    """Return the objects at a place; see `place_of`. Raises `ValueError` for another scheme."""
    return ObjectPlace(place_of(url))


def place_of(url: str) -> S3Store | Path:
    """Return the place that a directory's path, a `file:` URL or `s3://BUCKET/PREFIX` names.

    S3 reads its endpoint and credentials from the usual AWS_* variables; plain HTTP is for an AWS_ENDPOINT_URL of this
    machine, or if AWS_ALLOW_HTTP says so. Raises `ValueError` for another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return _bucket(url)
    if "://" in url and (parts.scheme != "file" or parts.netloc not in {"", "localhost"}):
        raise ValueError(
            f"invalid artifact store {parts.scheme}://{parts.netloc}: expected a path or s3://BUCKET/PREFIX"
        )
    return Path(unquote(parts.path) if parts.scheme == "file" else url).absolute()


def _bucket(url: str) -> S3Store:
    return S3Store.from_url(
        url,
        client_options={"allow_http": True} if _endpoint_is_here() else {},  # {} leaves it to AWS_ALLOW_HTTP
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


def _endpoint_is_here() -> bool:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    host = urlsplit(endpoint).hostname
    return bool(host) and is_loopback(str(host))


def _tidy(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a directory: those with a "#" in their names."""
    for path in folder.glob("**/*#*"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


@contextmanager
def _in_reach() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreUnavailable("the blob store is unavailable. Retry", "BLOB_STORE_UNAVAILABLE") from error
