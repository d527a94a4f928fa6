"""A run: one system after the other, each with its scenes, with the figures and the failures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks.harness.contract import Endpoint
from benchmarks.harness.figures import Figure
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.all import SYSTEMS


class Bench:
    """A run in progress; `progress` is called after every scene."""

    def __init__(self, console: Console, options: Options, progress: Callable[[Sequence[Figure]], None]) -> None:
        self._console = console
        self._options = options
        self._progress = progress
        self._begun = time.monotonic()
        self.figures: list[Figure] = []
        self.failures: list[str] = []

    def run(self, system: str, scenes: Sequence[Scene]) -> None:
        """Run the scenes: those without data share one running system, each other has its own."""
        groups = [
            [scene for scene in scenes if scene.write_data is None],
            *[[scene] for scene in scenes if scene.write_data],
        ]
        for group in filter(None, groups):
            with self._reporting_failures(f"{system}: start"):
                self._say(f"{system}: starting")
                with _running(system, group[0]) as endpoint:
                    for scene in group:
                        self._play(system, endpoint, scene)

    def _play(self, system: str, endpoint: Endpoint, scene: Scene) -> None:
        name = f"{system}: {scene.name}"
        self._say(name)
        with self._reporting_failures(name):
            self.figures += scene.measure(system, endpoint, self._options)
        self._progress(self.figures)

    @contextmanager
    def _reporting_failures(self, name: str) -> Iterator[None]:
        """Print and count a failure, so that the other measurements continue."""
        try:
            yield
        except Exception:  # noqa: BLE001
            self._console.print_exception()
            self.failures.append(name)

    def _say(self, what: str) -> None:
        self._console.print(f"{time.monotonic() - self._begun:5.0f} s  {what}", highlight=False)


@contextmanager
def _running(system: str, scene: Scene) -> Iterator[Endpoint]:
    """Run a system over the data that a scene needs."""
    with tempfile.TemporaryDirectory() as folder:
        if scene.write_data is not None:
            scene.write_data(Path(folder))
        with SYSTEMS[system](Path(folder) if scene.write_data else None) as endpoint:
            yield endpoint
