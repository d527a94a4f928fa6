"""Pages: the sizes and tokens of all listings.

A token holds the key of the last row, so that pages stay correct during writes, and the epochs of that key. A
page ends at the requested number of rows or when a message is full, whichever comes first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Protocol, TypeVar

from eventstore import Kind, Rejected, check_epoch, on_wire


class Sized(Protocol):
    """A protobuf message, as far as its size matters."""

    def ByteSize(self) -> int:  # noqa: N802 (protobuf's name)
        """Return the size of the serialized message in bytes."""


T = TypeVar("T")
M = TypeVar("M", bound=Sized)

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000
LARGEST_BYTES = 2 * 1024 * 1024
"""Half of gRPC's limit. A page has at least one row, which may be larger."""

MAX_ROW_BYTES = 4_000_000
"""Bytes of one row in an answer, so that a page of this row alone fits gRPC's 4 MiB."""

EPOCHS: ContextVar[Mapping[str, int]] = ContextVar("epochs", default=MappingProxyType({}))
"""The current epochs, by log, of the logs that the current call reads."""

_SHOWN_AT_ONCE = 100
_FRAME_BYTES = 8  # around an item of a message, at most
_UNFIT = re.compile("[\0\ud800-\udfff]")


def page_size(asked: int) -> int:
    """Return the number of rows of a page; 0 means the default."""
    return min(asked or DEFAULT_SIZE, LARGEST_SIZE)


def key_of(token: str, *types: type) -> tuple[object, ...] | None:
    """Return the key in a token, None for the first page.

    Raises:
        Rejected: INVALID_PAGE when the token is not from this listing.
        Conflict: LOG_EPOCH_CHANGED when it is of another epoch.
    """
    if not token:
        return None
    try:
        key = json.loads(base64.b64decode(token, altchars="-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    epochs = key.pop(0) if isinstance(key, list) and key and isinstance(key[0], dict) else {}
    is_ours = isinstance(key, list) and [type(part) for part in key] == list(types) and all(map(_fits, key))
    if not is_ours or any(type(epoch) is not int for epoch in epochs.values()):
        raise Rejected(
            Kind.INVALID,
            "INVALID_PAGE",
            "invalid page token: expected next_page_token of the same listing",
            page_token=token[:200],
        )
    for log, current in EPOCHS.get().items():
        check_epoch(log, epochs.get(log, 0), current)
    return tuple(key)


def _fits(part: object) -> bool:
    """Return whether a database can compare its columns with a part."""
    return -(2**63) <= part < 2**63 if isinstance(part, int) else not _UNFIT.search(str(part))


def cut(
    rows: Sequence[T], size: int, key: Callable[[T], Sequence[object]], show: Callable[[Sequence[T]], Iterable[M]]
) -> tuple[Sequence[M], str]:
    """Return a page and the token of the next page, from `size` + 1 rows or fewer.

    Args:
        rows: The rows of the page, and one more if there is one.
        size: The maximum number of rows; LARGEST_BYTES may end the page sooner, after at least one row.
        key: Returns the key of a row; the next page starts after it.
        show: Returns the messages of rows, one for each.
    """
    page = fitting(rows[:size], show)
    return page, token_of(key(rows[len(page) - 1])) if len(page) < len(rows) else ""


def fitting(rows: Sequence[T], show: Callable[[Sequence[T]], Iterable[M]]) -> list[M]:
    """Return the first rows, as many as fit a page, at least one."""
    page: list[M] = []
    budget = LARGEST_BYTES
    for start in range(0, len(rows), _SHOWN_AT_ONCE):
        for shown in show(rows[start : start + _SHOWN_AT_ONCE]):
            budget -= shown.ByteSize()
            if page and budget < 0:
                return page
            page.append(shown)
    return page


def enough(rows: Iterable[T], size: Callable[[T], int]) -> Iterator[T]:
    """Return the rows up to the first that does not fit the page, which shows that there is another page.

    Args:
        rows: The rows of a page, read lazily.
        size: Returns the size of a row in bytes.
    """
    budget = LARGEST_BYTES
    for number, row in enumerate(rows):
        yield row
        budget -= size(row)
        if number and budget < 0:
            return


def leading(items: Iterable[T], budget: int, size: Callable[[T], int]) -> Iterator[T]:
    """Yield the first items, as many as fit a message within a budget of bytes."""
    for item in items:
        budget -= size(item) + _FRAME_BYTES
        if budget < 0:
            return
        yield item


def token_of(key: Sequence[object]) -> str:
    """Return the token of the page that starts after a key."""
    epochs = {log: epoch for log, epoch in EPOCHS.get().items() if on_wire(epoch)}
    return base64.urlsafe_b64encode(json.dumps([*([epochs] if epochs else []), *key]).encode()).decode()
