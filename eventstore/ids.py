"""Unique ids: 128 random bits as 32 lower-case hex digits."""

from __future__ import annotations

import os
import random

# The system's own randomness costs a system call for each id, in which other threads take over.
_bits = random.Random(os.urandom(32))  # noqa: S311 - an id is no secret
os.register_at_fork(after_in_child=lambda: _bits.seed(os.urandom(32)))


def new_id() -> str:
    """Return an id that no other call returns, in this process or another."""
    return f"{_bits.getrandbits(128):032x}"
