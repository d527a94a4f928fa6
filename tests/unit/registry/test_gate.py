"""Quality gates: only a plain `true` lets a run pass."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from rollforward import v1
from services.registry.gate import LONGEST_EXPRESSION, check_expression, evaluate

RUN = v1.GateRun(
    run_id="r", metrics={"acc": 0.9, "loss": float("nan"), "top": float("inf")}, params={"depth": "3", "odd": "x"}
)
TEN = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


def nested(depth: int) -> str:
    """An expression that takes ten to the power of `depth` steps."""
    return "true" if not depth else f"{TEN}.all(x{depth}, {nested(depth - 1)})"


@pytest.mark.parametrize(
    "expression",
    [
        "true",
        "run.metrics.acc > 0.5",
        "run.metrics['acc'] >= 0.9 && run.params.depth == '3'",
        "run.metrics.top > 1e308",
        "'acc' in run.metrics && !('f1' in run.metrics)",
        "has(run.metrics.acc)",
        "run.metrics.missing > 0.5 || run.metrics.acc > 0.5",
        "int(run.params.depth) < 4",
    ],
)
def test_holds(expression: str) -> None:
    check_expression(expression)
    evidence = evaluate(expression, RUN, 7)
    assert evidence == v1.GateEvidence(expression=expression, run=RUN, tracking_position=7, passed=True)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("run.metrics.acc > 0.95", id="false"),
        pytest.param("run.metrics.missing > 0.5", id="a metric that there is not"),
        pytest.param("run.metrics.missing < 0.5", id="the same, the other way round"),
        pytest.param("run.params.missing == ''", id="a parameter that there is not"),
        pytest.param("run.metrics.loss < 0.5", id="NaN"),
        pytest.param("!(run.metrics.loss > 0.5)", id="NaN negated"),
        pytest.param("run.metrics.loss != 0.0", id="NaN differs from all numbers"),
        pytest.param("has(run.metrics.loss)", id="NaN is no measurement"),
        pytest.param("int(run.params.odd) > 1", id="a text that is no number"),
        pytest.param("run.params.odd.matches('[')", id="a bad pattern"),
        pytest.param("1 / 0 == 1", id="a division by zero"),
        pytest.param(nested(9), id="too much work"),
    ],
)
def test_does_not_hold(expression: str) -> None:
    check_expression(expression)
    evidence = evaluate(expression, RUN, 7)
    assert not evidence.passed
    assert evidence.detail
    assert evidence.expression == expression
    assert math.isnan(evidence.run.metrics["loss"])


def test_a_refusal_names_the_metrics_that_are_nan() -> None:
    assert "NaN: loss" in evaluate("run.metrics.loss < 0.5", RUN, 7).detail


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("", id="empty"),
        pytest.param("1", id="a number"),
        pytest.param("'true'", id="a text"),
        pytest.param("run.metrics.acc", id="a metric"),
        pytest.param("dyn(true)", id="who knows"),
        pytest.param("run.metrics.acc > 1", id="a whole number against a double"),
        pytest.param("run.metrics.acc > '1'", id="a text against a double"),
        pytest.param("run.params.depth > 1.0", id="a double against a text"),
        pytest.param("run.other == ''", id="a field that there is not"),
        pytest.param("other", id="a variable that there is not"),
        pytest.param("run.metrics.acc >", id="half of one"),
        pytest.param("\0", id="NUL"),
        pytest.param("(" * 1000 + "true" + ")" * 1000, id="a deep nest"),
        pytest.param(" " * LONGEST_EXPRESSION + "true", id="a long one"),
    ],
)
def test_is_no_gate(expression: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_expression(expression)
    assert refused.value.reason == "INVALID_GATE"


@given(st.text(max_size=30))
def test_any_text_is_a_gate_or_refused_as_one(expression: str) -> None:
    reasons = {""}
    try:
        check_expression(expression)
    except Rejected as error:
        reasons = {error.reason}
    assert reasons <= {"", "INVALID_GATE"}


@given(st.floats(), st.floats(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.booleans())
def test_no_comparison_with_nan_lets_a_run_pass(one: float, other: float, sign: str, negated: bool) -> None:
    expression = f"run.metrics.one {sign} run.metrics.other"
    run = v1.GateRun(metrics={"one": one, "other": other})
    evidence = evaluate(f"!({expression})" if negated else expression, run, 1)
    if math.isnan(one) or math.isnan(other):
        assert not evidence.passed
    else:
        holds = {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other, "==": one == other}
        assert evidence.passed == (holds.get(sign, one != other) != negated)


def test_a_refusal_names_the_metrics_that_it_looked_at() -> None:
    run = v1.GateRun(run_id="r", metrics={"accuracy": 0.883, "loss": 1.0})
    assert evaluate("run.metrics.accuracy > 0.95", run, 1).detail == "it is false, with accuracy = 0.883"
    assert evaluate("run.run_id == 'another'", run, 1).detail == "it is false"
