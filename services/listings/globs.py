"""Patterns of names, as policies, rollbacks, replays of gates and webhooks take them: one meaning for all."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return whether a whole name matches a pattern; case matters.

    ``*`` stands for any text, also for none, ``?`` for one character, ``[ab]`` and ``[a-c]`` for one of some,
    ``[!ab]`` for one of all others; every other character stands for itself, and so does a ``[`` that nothing closes.
    In brackets a wildcard stands for itself: ``a[*]`` fits the name ``a*`` alone. An empty pattern fits no name.
    """
    return re.compile(fnmatch.translate(pattern)).match


def is_literal(pattern: str) -> bool:
    """Return whether a pattern has no wildcard, and so is a name."""
    return literal_start(pattern) == pattern


def literal_start(pattern: str) -> str:
    """Return the prefix of all matching names: the pattern up to its first wildcard."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]
