"""Gate results and their inputs as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rollforward import v1


def verdict(evidence: v1.GateEvidence) -> str:
    """Return "passed", or "refused" with the reason."""
    return "passed" if evidence.passed else f"refused: {evidence.detail}"


def inputs(evidence: v1.GateEvidence) -> str:
    """Return the values in the gate's expression, such as "candidate v3 f1=0.8, champion v2 f1=0.9"."""
    own = "candidate" if evidence.others else "run"
    others = sorted(evidence.others.items())
    return ", ".join(_values(name, run, evidence.expression) for name, run in ((own, evidence.run), *others))


def gates_in_a_line(evidence: Iterable[v1.GateEvidence], skipped: Iterable[str]) -> str:
    """Return the results of the evaluated gates, and the skipped gates."""
    evaluated = [f"{result.policy or result.expression} {verdict(result)}" for result in evidence]
    return "; ".join([*evaluated, *(f"{gate} skipped" for gate in skipped)])


def _values(name: str, run: v1.GateRun, expression: str) -> str:
    head = f"{name} v{run.version}" if run.version else name
    named = [f"{key}={value:.6g}" for key, value in sorted(run.metrics.items()) if key in expression]
    named += [f"{key}={value}" for key, value in sorted(run.params.items()) if key in expression]
    named += [f"{key}={value}" for key, value in sorted(run.tags.items()) if key in expression]
    return " ".join([head, *named]) if named else f"{head} has none of its values"
