"""What a scene is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.contract import Endpoint
from benchmarks.harness.figures import Figure


@dataclass(frozen=True, slots=True)
class Options:
    """How long a round takes, and how many rounds a figure is the median of."""

    seconds: float = 2.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Scene:
    """`measure` is given a running system's name, its endpoint and the options; `about` is a line on what it measures.

    `lay` puts data into the directory that a system is then started over, for this scene alone.
    """

    name: str
    about: str
    systems: tuple[str, ...]
    measure: Callable[[str, Endpoint, Options], Iterator[Figure]]
    write_data: Callable[[Path], None] | None = None
