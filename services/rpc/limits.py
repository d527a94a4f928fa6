"""Limits on concurrent calls, so that no kind of call starves the others."""

from __future__ import annotations

import enum
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore import StoreUnavailable


class CallKind(enum.Enum):
    """The kinds of calls with separate limits, each with the reason of its rejection and its limit.

    A unary call is short. A stream of responses lasts, costs some kilobytes, and must not starve commands and queries.
    An upload may hold some megabytes that are received and not yet on disk.
    """

    UNARY = ("TOO_MANY_CALLS", 2_000)
    STREAM = ("TOO_MANY_STREAMS", 4_000)
    UPLOAD = ("TOO_MANY_UPLOADS", 64)

    def __init__(self, reason: str, limit: int) -> None:
        """Set the reason and the limit."""
        self.reason = reason
        self.limit = limit


MAX_CALLS = 2 * sum(kind.limit for kind in CallKind)
"""The maximum number of calls in a server, including those that have not sent their request yet."""

MAX_FILES = 65_536
_MAX_CONNECTIONS = 16_000


class Limiter:
    """The numbers of calls in progress, by kind."""

    def __init__(self) -> None:
        """Start without calls."""
        self._in_progress: Counter[CallKind] = Counter()

    @contextmanager
    def admitted(self, kind: CallKind) -> Iterator[None]:
        """Count a call in progress. Raises `StoreUnavailable` with the kind's reason if there are too many."""
        if self._in_progress[kind] >= kind.limit:
            fault = f"too many {kind.name.lower()} calls: this server accepts {kind.limit} at once. Retry later"
            raise StoreUnavailable(fault, kind.reason)
        self._in_progress[kind] += 1
        try:
            yield
        finally:
            self._in_progress[kind] -= 1


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows, up to `MAX_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    """Return the maximum number of connections: a quarter of the open files stays free for other work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(soft * 3 // 4, _MAX_CONNECTIONS)
