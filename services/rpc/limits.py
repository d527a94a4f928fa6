"""Limits on concurrent calls, so that no kind of call starves the others."""

from __future__ import annotations

import enum
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore import StoreUnavailable


class CallKind(enum.Enum):
    """The kinds of calls that are limited apart, each with the reason of its refusal and how many may be under way.

    A call of the first kind ends by itself. A stream of answers lasts, costs some kilobytes, and must not keep others
    from commands and queries. An upload may hold some megabytes, which the caller has sent and no disk has taken.
    """

    UNARY = ("TOO_MANY_CALLS", 2_000)
    STREAM = ("TOO_MANY_STREAMS", 4_000)
    UPLOAD = ("TOO_MANY_UPLOADS", 64)

    def __init__(self, reason: str, limit: int) -> None:
        """Keep what the kind consists of."""
        self.reason = reason
        self.limit = limit


MAX_CALLS = 2 * sum(kind.limit for kind in CallKind)
"""Calls of which a server knows at all: those that have not sent their request yet, too."""

MAX_FILES = 65_536
_MAX_CONNECTIONS = 16_000


class Limiter:
    """The numbers of calls in progress, by kind."""

    def __init__(self) -> None:
        """Start with none."""
        self._under_way: Counter[CallKind] = Counter()

    @contextmanager
    def admitted(self, kind: CallKind) -> Iterator[None]:
        """Count a call while it is under way. Raises `StoreUnavailable`, with the kind's reason, when too many are."""
        if self._under_way[kind] >= kind.limit:
            fault = f"this server answers at most {kind.limit} {kind.name.lower()} calls at once: try again"
            raise StoreUnavailable(fault, kind.reason)
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system lets this process, up to `MAX_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    """Return how many connections a server may hold: a quarter of its files is left for its own work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(soft * 3 // 4, _MAX_CONNECTIONS)
