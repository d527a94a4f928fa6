"""Lists that come in pages."""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from rollforward.errors import InvalidRequest

_PAGE: Final = 1000

_T = TypeVar("_T")


def collect(fetch: Callable[[int, str], tuple[Iterable[_T], str]], limit: int | None, *, page: int = _PAGE) -> list[_T]:
    """Return the first `limit` items; None returns all.

    `fetch(page_size, page_token)` returns the items of a page and the next page's token.

    Raises:
        InvalidRequest: INVALID_LIMIT.
    """
    if limit is not None and limit < 0:
        raise InvalidRequest("INVALID_LIMIT", f"limit must be >= 0, got {limit}")
    items: list[_T] = []
    token = ""
    while limit is None or len(items) < limit:
        size = page if limit is None else min(page, limit - len(items))
        page_items, token = fetch(size, token)
        items.extend(page_items)
        if not token:
            break
    return items
