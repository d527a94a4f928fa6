"""Free ports for programs that tests start."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator


def free_port() -> int:
    """Return a port that stays free while its program is down, and that is returned only once.

    It is none of those that the system gives to outgoing connections: such a port, connected to while nobody listens,
    may be connected to itself and be taken from then on.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _own_ports() -> Iterator[int]:
    """Yield the ports of this one of the parallel test processes, in a shuffled order."""
    first = 20_000 + 2_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6)
    return itertools.cycle(random.SystemRandom().sample(range(first, first + 2_000), 2_000))


_ports = _own_ports()
