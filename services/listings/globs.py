"""Patterns of names for policies, rollbacks, replays of gates and webhooks, with one syntax for all."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return a function that matches a whole name with a pattern; case matters.

    ``*`` matches any text, also none, ``?`` one character, ``[ab]`` and ``[a-c]`` one of these characters, and
    ``[!ab]`` any other character. Every other character matches itself, also a ``[`` without ``]`` and a wildcard in
    brackets: ``a[*]`` matches only ``a*``. An empty pattern matches no name.
    """
    return re.compile(fnmatch.translate(pattern)).match


def is_literal(pattern: str) -> bool:
    """Return whether a pattern has no wildcard, and so is a name."""
    return literal_start(pattern) == pattern


def literal_start(pattern: str) -> str:
    """Return the prefix of all matching names: the pattern up to its first wildcard."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]
