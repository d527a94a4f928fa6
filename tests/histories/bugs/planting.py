"""Tools to plant bugs in services: replace existing attributes, and act on every nth call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any


def replace_attribute(owner: Any, name: str, value: Any) -> None:
    """Replace an existing attribute."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def every(number: int) -> Callable[[], bool]:
    """Return a function that is true at every so many calls."""
    calls = itertools.count(1)
    return lambda: next(calls) % number == 0
