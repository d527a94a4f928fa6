"""The description of a scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.contract import Endpoint
from benchmarks.harness.figures import Figure


@dataclass(frozen=True, slots=True)
class Options:
    """The duration of a round, and the number of rounds for a median."""

    seconds: float = 2.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene: `measure` gets a system's name, its endpoint and the options; `about` describes the measurement.

    `lay` puts data into the directory that a system is then started over, for this scene alone.
    """

    name: str
    about: str
    systems: tuple[str, ...]
    measure: Callable[[str, Endpoint, Options], Iterator[Figure]]
    write_data: Callable[[Path], None] | None = None
