"""Which requests a log has certainly not seen: told from memory, so that a new request is looked up nowhere.

Source: B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970; the layers are those of P. S.
Almeida et al., "Scalable Bloom filters", 2007.
"""

from __future__ import annotations

_BITS = 10  # for each request, with _PROBES: about one new request in a hundred is looked up for nothing
_PROBES = 7
FIRST_REQUESTS = 1 << 16


class SeenRequests:
    """A set of requests that may take a new one for one that it holds, and never the other way round.

    Attributes:
        whole: Whether it holds all requests of the log.
    """

    def __init__(self) -> None:
        self.whole = False
        self._layers = [_Layer(FIRST_REQUESTS)]

    def add(self, actor: str, request_id: str) -> None:
        """Adds a request."""
        layer = self._layers[-1]
        if not layer.budget:
            layer = _Layer(layer.size * 2)
            self._layers.append(layer)
        layer.add(hash((actor, request_id)))

    def is_new(self, actor: str, request_id: str) -> bool:
        """Whether the log certainly does not hold a request."""
        mark = hash((actor, request_id))
        return self.whole and not any(layer.may_hold(mark) for layer in self._layers)


class _Layer:
    """The requests that came while there was room for them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.budget = size
        self._bits = bytearray(size * _BITS // 8)
        self._mask = size * _BITS

    def add(self, mark: int) -> None:
        first, step = _probes(mark)
        for probe in range(_PROBES):
            bit = (first + probe * step) % self._mask
            self._bits[bit >> 3] |= 1 << (bit & 7)
        self.budget -= 1

    def may_hold(self, mark: int) -> bool:
        first, step = _probes(mark)
        for probe in range(_PROBES):
            bit = (first + probe * step) % self._mask
            if not self._bits[bit >> 3] & 1 << (bit & 7):
                return False
        return True


def _probes(mark: int) -> tuple[int, int]:
    """Where the first bit of a request is, and how far the next ones are from each other."""
    return mark & 0xFFFFFFFF, mark >> 32 | 1
