"""`make bench`: rollforward beside MLflow's server and beside the limits of the machine, measured in one run."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report
from benchmarks.clients import Endpoint
from benchmarks.figures import Figure
from benchmarks.scene import Options, Scene
from benchmarks.scenes import flaky, moves, outage, past, points, resolves, rollback, watch
from benchmarks.systems.all import SYSTEMS
from benchmarks.systems.names import ALL, PEERS
from benchmarks.systems.peers import make_environment

SCENES = {module.SCENE.name: module.SCENE for module in (moves, resolves, watch, past, rollback, outage, flaky, points)}


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    scenes = [SCENES[name] for name in asked.scene or SCENES]
    systems = [system for system in ALL if system in (asked.system or ALL)]
    options = Options(asked.seconds, asked.rounds)
    console = Console(width=None if Console().is_terminal else 160)
    if any(system in PEERS for scene in scenes for system in scene.systems if system in systems):
        with console.status("making the peers' environment (.venv-peers), once"):
            make_environment()
    facts = machine.describe()
    figures: list[Figure] = []
    try:
        for system in systems:
            for one in _measured(console, system, [scene for scene in scenes if system in scene.systems], options):
                figures.append(one)
                if asked.json:
                    report.as_json(asked.json, facts, options, figures)
    finally:
        _print(console, scenes, facts, figures)


def _print(console: Console, scenes: Sequence[Scene], facts: Mapping[str, object], figures: Sequence[Figure]) -> None:
    console.print(" · ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
    for scene in scenes:
        if found := [one for one in figures if one.scene == scene.name]:
            console.print(f"\n[bold]{scene.name}[/]: {scene.about}", highlight=False)
            console.print(report.table(found))


def _measured(console: Console, system: str, scenes: Sequence[Scene], options: Options) -> Iterator[Figure]:
    """A system's figures: those of all scenes that need no data on one running system, then those of the others."""
    together = [scene for scene in scenes if scene.lay is None]
    for group in [together, *[[scene] for scene in scenes if scene.lay is not None]]:
        if group:
            with console.status(f"{system}: starting"), _running(system, group[0]) as endpoint:
                yield from _figures(console, system, endpoint, group, options)


def _figures(
    console: Console, system: str, endpoint: Endpoint, scenes: Sequence[Scene], options: Options
) -> Iterator[Figure]:
    for scene in scenes:
        console.print(f"{system}: {scene.name} ...")
        yield from scene.measure(system, endpoint, options)


@contextmanager
def _running(system: str, scene: Scene) -> Iterator[Endpoint]:
    if scene.lay is None:
        with SYSTEMS[system](None) as endpoint:
            yield endpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        scene.lay(Path(folder))
        with SYSTEMS[system](Path(folder)) as endpoint:
            yield endpoint


def _arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {scene.name:<10} {scene.about} ({', '.join(scene.systems)})" for scene in SCENES.values())
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=f"scenes:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scene", action="append", choices=SCENES, help="only this one; may be repeated")
    parser.add_argument("--system", action="append", choices=ALL, help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=Options().seconds, help="how long a round takes; default 3")
    parser.add_argument("--rounds", type=int, default=Options().rounds, help="a figure is their median; default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and ratios to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
