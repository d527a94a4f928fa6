"""Recent requests: which request wrote which events, known before any rows have them; and which requests are new.

A new request must not cost a look-up in the rows: on PostgreSQL it halves the rate of moves (ADR 0024). So all requests
of the log are kept in a filter, which knows most new ones for new.

Source: B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970; the layers are those of P. S.
Almeida et al., "Scalable Bloom filters", 2007.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventstore.decider import Request
from eventstore.event import RecordedEvent

_BITS = 10  # for each request, with _PROBES: about one new request in a hundred is looked up for nothing
_PROBES = 7
FIRST_REQUESTS = 1 << 16


class RecentRequests:
    """The requests behind the events that a tail keeps, and a filter of all requests of the log.

    Attributes:
        complete: Whether the filter holds all requests of the log, also those from before the tail began.
    """

    def __init__(self) -> None:
        self.complete = False
        self._filter = RequestFilter()
        self._by_id: dict[tuple[str, str], Request] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, actor: str, request_id: str) -> Request | None:
        """Return what a request wrote; None when it is not a recent one."""
        return self._by_id.get((actor, request_id))

    def is_new(self, actor: str, request_id: str) -> bool:
        """Return whether the log certainly does not hold a request."""
        return self.complete and not self._filter.may_hold(actor, request_id)

    def note(self, batch: Sequence[RecordedEvent]) -> None:
        """Note which requests wrote these events."""
        for event in batch:
            meta = event.metadata
            if meta.request_id:
                key = meta.actor, meta.request_id
                known = self._by_id.get(key)
                if known is None:
                    self._filter.add(*key)
                first = known.first if known else event.position
                self._by_id[key] = Request(meta.request_digest, first, event.position)

    def note_older(self, actor: str, request_id: str) -> None:
        """Note a request from before the tail began."""
        self._filter.add(actor, request_id)

    def forget(self, batch: Sequence[RecordedEvent]) -> None:
        """Forget what these requests wrote; the filter keeps them."""
        for event in batch:
            self._by_id.pop((event.metadata.actor, event.metadata.request_id), None)


class RequestFilter:
    """A set of requests that may take a new one for one that it holds, and never the other way round."""

    def __init__(self) -> None:
        self._layers = [_Layer(FIRST_REQUESTS)]

    def add(self, actor: str, request_id: str) -> None:
        """Add a request."""
        layer = self._layers[-1]
        if not layer.free:
            layer = _Layer(layer.size * 2)
            self._layers.append(layer)
        layer.add(hash((actor, request_id)))

    def may_hold(self, actor: str, request_id: str) -> bool:
        """Return whether it may hold a request; False is certain."""
        mark = hash((actor, request_id))
        return any(layer.may_hold(mark) for layer in self._layers)


class _Layer:
    """A Bloom filter for so many requests."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._bits = bytearray(size * _BITS // 8)
        self._length = size * _BITS

    def add(self, mark: int) -> None:
        first, step = _probes(mark)
        for probe in range(_PROBES):
            bit = (first + probe * step) % self._length
            self._bits[bit >> 3] |= 1 << (bit & 7)
        self.free -= 1

    def may_hold(self, mark: int) -> bool:
        first, step = _probes(mark)
        for probe in range(_PROBES):
            bit = (first + probe * step) % self._length
            if not self._bits[bit >> 3] & 1 << (bit & 7):
                return False
        return True


def _probes(mark: int) -> tuple[int, int]:
    """Return where the first bit of a request is, and the distance between its bits."""
    return mark & 0xFFFFFFFF, mark >> 32 | 1
