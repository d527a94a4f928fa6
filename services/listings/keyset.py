"""Keyset pagination in any order: page tokens, and the rows that come after the row of a token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import Kind, Rejected, position_of
from services.listings.pages import cut, key_of, page_size

Row = Any
"""A row with any columns."""

M = TypeVar("M", bound=Message)


class Listing(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int:
        """The number of rows; 0 means the default."""

    @property
    def page_token(self) -> str:
        """The token of the page; empty for the first."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A column to sort by; the last one of a listing is unique."""

    column: sa.ColumnElement[Any]
    kind: type = int
    descending: bool = False


def listing_key(request: Listing, *kinds: type) -> tuple[Any, ...] | None:
    """Return the key in a request's page token, None for the first page.

    Raises:
        Rejected: INVALID_PAGE when the token is not from the same listing.
    """
    key = key_of(request.page_token, str, *kinds)
    if key is None:
        return None
    if key[0] != asked_by(request):
        message = "invalid page token: it is from a listing with another filter or order"
        raise Rejected(Kind.INVALID, "INVALID_PAGE", message, page_token=request.page_token[:200])
    return key[1:]


def listing_page(
    request: Listing,
    rows: Sequence[Row],
    key: Sequence[sa.ColumnElement[Any]],
    show: Callable[[Row], M],
    *before: object,
) -> tuple[Sequence[M], str]:
    """Return a page and the next page's token, from the page's rows and one more; `key` are the key columns."""
    asked = asked_by(request)
    return cut(
        rows,
        page_size(request.page_size),
        lambda row: [asked, *before, *(_in(row, column) for column in key)],
        lambda shown: [show(row) for row in shown],
    )


def asked_by(request: Any) -> str:
    """Return a hash of a request without its page token and page size."""
    query: Message = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_token")
    query.ClearField("page_size")
    return hashlib.sha256(query.SerializeToString(deterministic=True)).hexdigest()[:16]


def behind(sorts: Sequence[Sort], key: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return whether a row comes after the one with this key."""
    alternatives = []
    for number, sort in enumerate(sorts):
        same = [before.column == value for before, value in zip(sorts[:number], key, strict=False)]
        after = sort.column < key[number] if sort.descending else sort.column > key[number]
        alternatives.append(sa.and_(*same, after))
    return sa.or_(*alternatives)


def ordered(statement: sa.Select[Any], sorts: Sequence[Sort]) -> sa.Select[Any]:
    """Return a statement with its rows in order."""
    return statement.order_by(*(sort.column.desc() if sort.descending else sort.column for sort in sorts))


def walk(
    connection: sa.Connection,
    statement: sa.Select[Any],
    request: Listing,
    sorts: Sequence[Sort],
    show: Callable[[Sequence[Row]], Iterable[M]],
    changed: sa.ColumnElement[int] | None = None,
) -> tuple[Sequence[M], str]:
    """Return a page in the requested order, and the token of the next page.

    Args:
        connection: The connection to query.
        statement: The listing; it selects the columns of `sorts`, and `changed`.
        request: The request for the page.
        sorts: The order.
        show: Returns the messages of rows.
        changed: The column of a row's last revision, if a change moves a row towards the beginning: rows that changed
            after the first page was read come at the end, again or for the first time.
    """
    kinds = [sort.kind for sort in sorts]
    size = page_size(request.page_size)
    began, again, *key = listing_key(request, int, int, *kinds) or (position_of(connection), 0)
    rows: list[tuple[Row, int]] = []
    if not again:
        remaining = statement.where(behind(sorts, key)) if key else statement
        rows = [(row, 0) for row in connection.execute(ordered(remaining, sorts).limit(size + 1))]
    if changed is not None and key and len(rows) <= size:
        later = [Sort(changed), sorts[-1]]
        since = behind(later, [again, key[-1]]) if again else changed > began
        more = ordered(statement.where(since), later).limit(size + 1 - len(rows))
        rows += [(row, _in(row, changed)) for row in connection.execute(more)]
    asked = asked_by(request)
    return cut(
        rows,
        size,
        lambda row: [asked, began, row[1], *(_in(row[0], sort.column) for sort in sorts)],
        lambda shown: show([row for row, _ in shown]),
    )


def _in(row: Row, column: sa.ColumnElement[Any]) -> Any:
    return getattr(row, str(column.key))
