"""The figures as a table a scene, and the ratios between the systems."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness.figures import Figure
from benchmarks.harness.scene import Scene
from benchmarks.systems.names import ALL, LIMITS, OURS, PEERS, TRACKIO

_BEGIN, _END = "<!-- figures of the {} -->", "<!-- end of figures -->"
_MORE_IS_BETTER = ("/s", "points/s")
_COMPARED = (*_MORE_IS_BETTER, "ms", "p50 ms", "p99 ms", "p50 us", "p99 us", "server CPU ms a call")


def table(figures: Sequence[Figure]) -> Table:
    """Return a scene's figures for a terminal: a row for each line and unit, a column for each system or ratio."""
    headings, rows = _cells(figures)
    view = Table(*headings[:2])
    for heading in headings[2:]:
        view.add_column(heading, justify="right")
    for row in rows:
        view.add_row(*row)
    return view


def write_readme(
    path: Path, suite: str, payloads: Mapping[str, Any], scenes: Sequence[Scene], figures: Sequence[Figure]
) -> None:
    """Write the figures of a suite between its two marks in a Markdown file, replacing the old ones."""
    before, mark, rest = path.read_text().partition(_BEGIN.format(suite))
    _, end, after = rest.partition(_END)
    if not mark or not end:
        raise ValueError(f"{path} lacks its marks")
    parts = [", ".join(f"{name} {value}" for name, value in payloads.items()) + "."]
    for scene in scenes:
        if found := [one for one in figures if one.scene == scene.name]:
            parts += [f"### {scene.name}: {scene.about}", _markdown(*_cells(found))]
    path.write_text("\n\n".join([before + mark, *parts, end + after]))


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def _cells(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of a table of one scene's figures."""
    systems = [system for system in ALL if any(one.system == system for one in figures)]
    compared = {key: ratios(figures, *key) for key in _rows(figures)}
    others = [other for other in (*PEERS, TRACKIO, *LIMITS) if any(other in found for found in compared.values())]
    headings = ["what", "unit", *systems, *[f"of {other}" if other in LIMITS else f"x {other}" for other in others]]
    rows = []
    for (line, unit), values in _rows(figures).items():
        cells = [_number(values[system]) if system in values else "" for system in systems]
        rows.append([line, unit, *cells, *[_times(other, compared[line, unit].get(other)) for other in others]])
    return headings, rows


def ratios(figures: Sequence[Figure], line: str, unit: str) -> dict[str, float]:
    """Return how many times better ours is than a peer on the same kind of database, and than a limit, by name.

    A line of a peer alone, such as one with another kind of client, is compared with ours without: "a, b" with "a".
    """
    found = {}
    values = _rows(figures).get((line, unit), {})
    ours = values or {}
    if not any(system in ours for system in OURS):
        ours = _rows(figures).get((line.partition(",")[0], unit), {})
    if unit in _COMPARED:
        for mine, other in [*zip(OURS, PEERS, strict=True), *((OURS[0], other) for other in (*LIMITS, TRACKIO))]:
            if values.get(other) and ours.get(mine):
                found[other] = _times_better(ours[mine], values[other], unit)
    return found


def as_json(path: Path, payloads: Mapping[str, Any], figures: Sequence[Figure]) -> None:
    """Write everything to a file."""
    keys = dict.fromkeys((one.scene, one.line, one.unit) for one in figures)
    compared = []
    for scene, line, unit in keys:
        found = ratios([one for one in figures if one.scene == scene], line, unit)
        compared += [
            {"scene": scene, "line": line, "unit": unit, "than": other, "times": value}
            for other, value in found.items()
        ]
    content = {
        "run": dict(payloads),
        "figures": [one.as_json() for one in figures],
        "times_better": compared,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _rows(figures: Iterable[Figure]) -> dict[tuple[str, str], dict[str, float]]:
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for one in figures:
        rows.setdefault((one.line, one.unit), {})[one.system] = one.value
    return rows


def _times(other: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0%}" if other in LIMITS else f"{value:.1f}"


def _times_better(ours: float, other: float, unit: str) -> float:
    return ours / other if unit in _MORE_IS_BETTER else other / ours


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
