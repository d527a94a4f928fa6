"""`make bench`: rollforward next to MLflow's server and the limits of the machine, measured in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.harness import machine, report
from benchmarks.harness.bench import Bench
from benchmarks.harness.figures import Figure
from benchmarks.harness.scene import Options, Scene
from benchmarks.registry import flaky, moves, outage, past, resolves, rollback, watch
from benchmarks.systems.names import ALL, PEERS, TRACKIO
from benchmarks.systems.peers import make_environment
from benchmarks.tracking import batches, calls, history, jobs, log_metric, runs

SUITES = {
    "registry": [module.SCENE for module in (moves, resolves, watch, past, rollback, outage, flaky)],
    "tracking": [module.SCENE for module in (calls, batches, jobs, runs, history, log_metric)],
}
SCENES = {scene.name: scene for scenes in SUITES.values() for scene in scenes}

README = Path(__file__).with_name("README.md")


def main() -> None:
    """Measure and print; ends with status 1 when something could not be measured."""
    asked = _arguments()
    suites = [SUITES[name] for name in asked.suite or SUITES]
    scenes = [SCENES[name] for name in asked.scene or [scene.name for suite in suites for scene in suite]]
    systems = [system for system in asked.system or ALL if any(system in scene.systems for scene in scenes)]
    options = Options(asked.seconds, asked.rounds)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for peer in sorted({system.partition("-")[0] for system in systems if system in (*PEERS, TRACKIO)}):
        with console.status(f"making the environment of {peer} (in .venv-peers), once"):
            make_environment(peer)
    payloads = {**machine.describe(), "seconds": options.seconds, "rounds": options.rounds}

    def write(figures: Sequence[Figure]) -> None:
        if asked.json:
            report.as_json(asked.json, payloads, figures)

    bench = Bench(console, options, write)
    try:
        for system in systems:
            bench.run(system, [scene for scene in scenes if system in scene.systems])
    finally:
        _print(console, scenes, payloads, bench.figures)
    if asked.readme:
        for name in asked.suite or SUITES:
            report.write_readme(README, name, payloads, SUITES[name], bench.figures)
    if bench.failures:
        raise SystemExit(f"failed: {'; '.join(bench.failures)}")


def _print(
    console: Console, scenes: Sequence[Scene], payloads: Mapping[str, object], figures: Sequence[Figure]
) -> None:
    console.print(" · ".join(f"{name} {value}" for name, value in payloads.items()), highlight=False)
    for scene in scenes:
        if found := [one for one in figures if one.scene == scene.name]:
            console.print(f"\n[bold]{scene.name}[/]: {scene.about}", highlight=False)
            console.print(report.table(found))


def _arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {scene.name:<10} {scene.about} ({', '.join(scene.systems)})" for scene in SCENES.values())
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=f"scenes:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only its scenes; may be repeated")
    parser.add_argument("--scene", action="append", choices=SCENES, help="only this one; may be repeated")
    parser.add_argument("--system", action="append", choices=ALL, help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=Options().seconds, help="how long a round takes; default 2")
    parser.add_argument("--rounds", type=int, default=Options().rounds, help="a figure is their median; default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and ratios to this file too")
    parser.add_argument("--readme", action="store_true", help="put the figures into benchmarks/README.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
