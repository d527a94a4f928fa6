"""The reason of the changes that MLflow's functions make."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REASON: Final[ContextVar[str]] = ContextVar("rollforward_reason", default="")
"""Why the commands of this context are made."""


@contextmanager
def reason(text: str) -> Iterator[None]:
    """Give the reason of all changes that MLflow's functions make in a `with` block.

    Args:
        text: Why, at most 4000 characters; the events of the changes hold it.
    """
    token = REASON.set(text)
    try:
        yield
    finally:
        REASON.reset(token)
