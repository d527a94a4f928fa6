"""Quality gates: CEL expressions over a run, compiled against its type and evaluated within a budget."""

from __future__ import annotations

import math

from cel_expr_python import cel
from google.protobuf import descriptor_pool

from eventstore.errors import Kind, Rejected
from rollforward import v1

LONGEST_EXPRESSION = 4000

_environment = cel.NewEnv(descriptor_pool.Default(), variables={"run": cel.Type(v1.GateRun.DESCRIPTOR.full_name)})


def check_expression(expression: str) -> None:
    """Raises `Rejected` INVALID_GATE unless the expression compiles over `run` and is true or false."""
    if len(expression) > LONGEST_EXPRESSION:
        raise _invalid(f"longer than {LONGEST_EXPRESSION} characters")
    try:
        compiled = _environment.compile(expression)
    except RuntimeError as error:
        raise _invalid(f"{error} (a metric is a double: write 1.0, not 1)") from error
    if compiled.return_type() != cel.Type.BOOL:
        raise _invalid("not a truth value")


def evaluate(expression: str, run: v1.GateRun, tracking_position: int) -> v1.GateEvidence:
    """What the gate says of a run: all but a plain `true` is a refusal, be it false, an error or too much work.

    A metric that is NaN is as good as none: no comparison with it, not even a negated one, may let a run pass.
    """
    known = v1.GateRun(run_id=run.run_id, params=run.params)
    known.metrics.update({key: value for key, value in run.metrics.items() if not math.isnan(value)})
    try:
        value = _environment.compile(expression).eval(data={"run": known})
        passed = value.type() == cel.Type.BOOL and value.value() is True
        detail = "" if passed else _why_not(value, expression, known)
    except RuntimeError as error:  # such as: iteration budget exceeded
        passed, detail = False, str(error)
    if missing := sorted(run.metrics.keys() - known.metrics.keys()):
        detail = detail and f"{detail} (NaN: {', '.join(missing)})"
    return v1.GateEvidence(
        expression=expression, run=run, tracking_position=tracking_position, passed=passed, detail=detail
    )


def _why_not(value: cel.Value, expression: str, run: v1.GateRun) -> str:
    if value.type() != cel.Type.BOOL:
        return str(value.value())
    seen = [f"{name} = {run.metrics[name]:g}" for name in sorted(run.metrics) if name in expression]
    return f"it is false, with {', '.join(seen)}" if seen else "it is false"


def _invalid(why: str) -> Rejected:
    return Rejected(Kind.INVALID, "INVALID_GATE", f"not a gate: {why}")
