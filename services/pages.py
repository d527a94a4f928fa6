"""Pages: the sizes and tokens of all listings.

A token holds the key of the last row, so that pages stay right while writes go on.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from eventstore.errors import Kind, Rejected

T = TypeVar("T")

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000


def page_size(asked: int) -> int:
    """How many rows a page has; 0 asks for the default."""
    return min(asked or DEFAULT_SIZE, LARGEST_SIZE)


def key_of(token: str, *types: type) -> tuple[object, ...] | None:
    """The key in a token, None for the first page.

    Raises:
        Rejected: INVALID_PAGE when the token is not one of ours for this listing.
    """
    if not token:
        return None
    try:
        key = json.loads(base64.b64decode(token, altchars="-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(types) or not all(map(_fits, key)):
        raise Rejected(Kind.INVALID, "INVALID_PAGE", "this page token is not from this listing", page_token=token[:200])
    return tuple(key)


def _fits(part: object) -> bool:
    """Whether a database can compare its columns with it."""
    return -(2**63) <= part < 2**63 if isinstance(part, int) else "\0" not in str(part)


def cut(rows: Sequence[T], size: int, key: Callable[[T], Sequence[object]]) -> tuple[Sequence[T], str]:
    """A page and the token of the next one, from `size` + 1 rows or fewer."""
    if len(rows) <= size:
        return rows, ""
    token = base64.urlsafe_b64encode(json.dumps(list(key(rows[size - 1]))).encode()).decode()
    return rows[:size], token
