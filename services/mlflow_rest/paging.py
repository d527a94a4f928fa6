"""Searches in MLflow's form: how many results, in what order, and which of them are deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from rollforward import v1
from services.mlflow_rest.errors import invalid

T = TypeVar("T")

_LARGEST_PAGE = 1000
_LIFECYCLES = {
    "ACTIVE_ONLY": v1.LIFECYCLE_ACTIVE,
    "DELETED_ONLY": v1.LIFECYCLE_DELETED,
    "ALL": v1.LIFECYCLE_ALL,
    "1": v1.LIFECYCLE_ACTIVE,
    "2": v1.LIFECYCLE_DELETED,
    "3": v1.LIFECYCLE_ALL,
}


def lifecycle_of(view: str) -> v1.Lifecycle.ValueType:
    """Return which things a view shows. Raises `MlflowError` for an unknown one."""
    if view not in _LIFECYCLES:
        raise invalid(f"invalid view type {view[:100]!r}: expected ACTIVE_ONLY, DELETED_ONLY or ALL")
    return _LIFECYCLES[view]


def order_of(clauses: Sequence[str]) -> str:
    """Return the order of several clauses."""
    return ", ".join(clauses)


def page_limit(asked: int, largest: int) -> int:
    """Return how many results are wanted. Raises `MlflowError` unless it is between 1 and the largest number."""
    if not 1 <= asked <= largest:
        raise invalid(f"invalid value {asked} for parameter 'max_results': expected 1 to {largest}")
    return asked


async def collected(
    page: Callable[[int, str], Awaitable[tuple[Sequence[T], str]]], limit: int, token: str, largest: int = _LARGEST_PAGE
) -> tuple[list[T], str]:
    """Collect pages up to a number of results, and return them with the token of what follows.

    Args:
        page: Returns a page of at most so many results after a token, and the next token.
        limit: How many results.
        token: Where to begin; empty for the beginning.
        largest: The number of results of a page.
    """
    results: list[T] = []
    while True:
        more, token = await page(min(limit - len(results), largest), token)
        results += more
        if not token or len(results) >= limit:
            return results, token
