"""Gates: only a plain `true` lets a run pass, and evidence suffices to recompute the result."""

from __future__ import annotations

import ast
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from rollforward import v1
from services.registry.gates.expression import (
    MAX_EXPRESSION,
    RULES,
    check_expression,
    evaluate,
    evaluate_again,
    recompute,
)

RUN = v1.GateRun(run_id="r", metrics={"acc": 0.9, "f2": 0.6}, params={"depth": "3", "odd": "x"})
BROKEN = v1.GateRun(
    run_id="r",
    metrics={"acc": 0.9, "tp": 1.0, "n": 0.0, "big": 1e308, "loss": float("nan"), "top": float("inf")},
    params={"inf": "inf", "key": "loss"},
)
CANDIDATE = v1.GateRun(run_id="c", version=3, metrics={"f1": 0.9, "auc": 0.7}, tags={"team": "risk"})
CHAMPION = v1.GateRun(run_id="d", version=2, metrics={"f1": 0.8, "auc": 0.75})
NO_RUN = v1.GateRun()
MOVE = {"candidate": CANDIDATE, "current": NO_RUN, "champion": CHAMPION}
TEN = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


def of_run(expression: str, run: v1.GateRun = RUN) -> v1.GateEvidence:
    """Evaluate a gate of registrations."""
    check_expression(expression, of_move=False)
    return evaluate(expression, {"run": run}, 7)


def of_move(expression: str, **others: v1.GateRun) -> v1.GateEvidence:
    """Evaluate a gate of moves."""
    check_expression(expression, of_move=True)
    return evaluate(expression, MOVE | others, 7, "policy")


def nested(depth: int) -> str:
    """Return an expression that takes 10 ** `depth` steps."""
    return "true" if not depth else f"{TEN}.all(x{depth}, {nested(depth - 1)})"


def folded(depth: int) -> str:
    """Return an expression that compares a list nested `depth` levels deep, ten elements each, with itself."""
    expression = f"x{depth} == x{depth}"
    for level in range(depth, 0, -1):
        inner = f"x{level - 1}" if level > 1 else "1"
        expression = f"[[{', '.join([inner] * 10)}]].all(x{level}, {expression})"
    return expression


@pytest.mark.parametrize(
    "expression",
    [
        "true",
        "run.metrics.acc > 0.5",
        "run.metrics['acc'] >= 0.9 && run.params.depth == '3'",
        "'acc' in run.metrics && !('f1' in run.metrics)",
        "has(run.metrics.acc)",
        "run.metrics.missing > 0.5 || run.metrics.acc > 0.5",
        "int(run.params.depth) < 4",
        "run.version == 0",
        "run.params.depth in ['2', '3']",
        "run.params.odd.startsWith('x') && run.params.odd.contains('x')",
        "run.metrics.all(k, run.metrics[k] > 0.5)",
        "run.metrics.filter(k, run.metrics[k] > 0.5).size() == 2",
        "[run].all(r, r.metrics.acc > 0.5)",
    ],
)
def test_true_expression_passes(expression: str) -> None:
    evidence = of_run(expression)
    assert (evidence.passed, evidence.detail) == (True, "")
    assert (evidence.expression, evidence.tracking_position) == (expression, 7)
    assert recompute(evidence)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("run.metrics.acc > 0.95", id="false"),
        pytest.param("run.metrics.missing > 0.5", id="unknown metric"),
        pytest.param("run.metrics.missing < 0.5", id="unknown metric, below"),
        pytest.param("run.params.missing == ''", id="unknown parameter"),
        pytest.param("int(run.params.odd) > 1", id="text that is not a number"),
        pytest.param("1 / 0 == 1", id="division by zero"),
    ],
)
def test_false_or_failing_expression_does_not_pass(expression: str) -> None:
    evidence = of_run(expression)
    assert not evidence.passed
    assert evidence.detail
    assert evidence.expression == expression
    assert recompute(evidence)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("", id="empty"),
        pytest.param("1", id="number"),
        pytest.param("'true'", id="text"),
        pytest.param("run.metrics.acc", id="metric"),
        pytest.param("dyn(true)", id="dynamic type"),
        pytest.param("run.metrics.acc > 1", id="double compared with integer"),
        pytest.param("run.metrics.acc > '1'", id="double compared with text"),
        pytest.param("run.params.depth > 1.0", id="text compared with double"),
        pytest.param("run.other == ''", id="unknown field"),
        pytest.param("other", id="unknown variable"),
        pytest.param("candidate.metrics.acc > 0.5", id="variable of moves"),
        pytest.param("run.metrics.acc >", id="incomplete"),
        pytest.param("\0", id="NUL"),
        pytest.param("(" * 1000 + "true" + ")" * 1000, id="deep nesting"),
        pytest.param("1.0 / (" * 25 + "run.metrics.acc" + ")" * 25 + " > 0.5", id="deep nesting of numbers"),
        pytest.param(" " * MAX_EXPRESSION + "true", id="too long"),
        pytest.param("true" + " && true" * 100_000, id="huge"),
        pytest.param(nested(3), id="three nested loops"),
        pytest.param(nested(9), id="nine nested loops"),
        pytest.param(
            "[run].all(a, [a].filter(b, [b].exists(c, true)).size() > 0)", id="three nested loops of three kinds"
        ),
        pytest.param(folded(3), id="lists of lists of lists"),
        pytest.param(folded(2).replace("1, ", "1, " * 20), id="costly comparison"),
        pytest.param(nested(2).replace("true", " || ".join(["run.params.p.contains('a')"] * 3)), id="many searches"),
        pytest.param("run.params.depth.matches('(a+)+$')", id="regular expression"),
        pytest.param("matches(run.params.depth, '(a+)+$')", id="regular expression as a function"),
        pytest.param("run.params.depth + 'a' == '3a'", id="texts joined"),
        pytest.param("[1] + [2] == [1, 2]", id="lists joined"),
        pytest.param("b'a' + b'b' == b'ab'", id="bytes joined"),
        pytest.param("run.metrics.map(k, [k, k]).size() > 0", id="list of lists"),
        pytest.param("{'a': 1} == {'a': 1}", id="map literal"),
        pytest.param("google.protobuf.ListValue{} == google.protobuf.ListValue{}", id="message literal"),
    ],
)
def test_invalid_expression_is_rejected_without_evaluation(expression: str) -> None:
    # Evaluation of some of these would take longer than any test's timeout.
    with pytest.raises(Rejected) as refused:
        check_expression(expression, of_move=False)
    assert refused.value.reason == "INVALID_GATE"
    evidence = evaluate(expression, {"run": RUN}, 7)
    assert not evidence.passed
    assert recompute(evidence)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("run.metrics.all(a, run.metrics.all(b, run.metrics[a] + run.metrics[b] >= 0.0))", id="loop"),
        pytest.param("run.metrics == run.metrics", id="comparison"),
    ],
)
def test_expression_too_costly_for_metrics_does_not_pass(expression: str) -> None:
    few, many = ({f"m{number}": 1.0 for number in range(count)} for count in (60, 500))
    assert of_run(expression, v1.GateRun(run_id="r", metrics=few)).passed
    evidence = of_run(expression, v1.GateRun(run_id="r", metrics=many))
    assert not evidence.passed
    assert "it is too expensive" in evidence.detail  # rejected before evaluation
    assert recompute(evidence)


def test_loop_over_thousands_of_metrics_is_evaluated() -> None:
    run = v1.GateRun(run_id="r", metrics={f"m{number}": 1.0 for number in range(5000)})
    assert of_run("run.metrics.all(k, run.metrics[k] >= 0.0)", run).passed


NOT_FINITE = [
    ("run.metrics.tp / run.metrics.n > 0.5", "run.metrics.tp / run.metrics.n"),
    ("run.metrics.n / run.metrics.n != 0.5", "run.metrics.n / run.metrics.n"),
    ("!(run.metrics.n / run.metrics.n > 0.5)", "run.metrics.n / run.metrics.n"),
    ("run.metrics.tp/run.metrics['n'] > 0.5 || true", "run.metrics.tp/run.metrics['n']"),
    ("true && (1.0 / run.metrics.n > 0.5 || run.metrics.acc > 0.5)", "1.0 / run.metrics.n"),
    ("run.metrics.n > 1.0 || (run.metrics.acc > 0.5 ? -1.0 / run.metrics.n : 1.0) < 0.5", "-1.0 / run.metrics.n"),
    ("1.0 / (run.metrics.big * 10.0) < 0.5", "run.metrics.big * 10.0"),
    ("run.metrics.big + run.metrics.big - 1.0 > 0.5", "run.metrics.big + run.metrics.big - 1.0"),
    ("double('NaN') != 1.0", "double('NaN')"),
    ("double(run.params.inf) > 0.5", "double(run.params.inf)"),
    ("1e999 > 0.5", "1e999"),
    ("-1e999 < 0.5", "-1e999"),
    ("run.metrics.loss < 0.5", "run.metrics.loss is NaN"),
    ("!(run.metrics.loss > 0.5)", "run.metrics.loss is NaN"),
    ("run.metrics.loss != 0.0", "run.metrics.loss is NaN"),
    ("run.metrics.top > 1e308", "run.metrics.top is inf"),
    ("run.metrics[run.params.key] != 0.0", "run.metrics[run.params.key] is NaN"),
    ("has(run.metrics.loss)", "run.metrics.loss"),
    ("!has(run.metrics.top)", "run.metrics.top"),
    ("!('loss' in run.metrics) || run.metrics.loss < 20.0", "'loss' in run.metrics"),
    ("run.params.key in run.metrics", "run.params.key in run.metrics"),
    ("run.metrics.exists(k, k == 'acc')", "run.metrics has loss = NaN"),
    ("run.metrics.all(k, run.metrics[k] != 0.5)", "run.metrics has loss = NaN"),
    ("run.metrics.size() > 1", "run.metrics has loss = NaN"),
    ("run.metrics.filter(k, k == 'acc').size() == 1", "run.metrics has loss = NaN"),
    ("[run].exists(r, r.metrics.loss != 0.0)", "r.metrics.loss is NaN"),
    ("run != run", "run has metrics.loss = NaN"),
    ("[run] != [run]", "[run] has metrics.loss = NaN"),
    ("!(run in [run])", "run has metrics.loss = NaN"),
    ("[1.0, 0.0].exists(x, 1.0 / x > 0.5)", "1.0 / x is inf"),
    ("[0.0, 1.0].exists(x, 1.0 / x < 5.0)", "1.0 / x is inf"),
    ("[1.0, 0.0].filter(x, 1.0 / x < 5.0).size() == 1", "1.0 / x is inf"),
    ("[run.metrics.n / run.metrics.n] != [0.5]", "run.metrics.n / run.metrics.n"),
    ("run.metrics.acc in [0.9, 1.0 / run.metrics.n]", "1.0 / run.metrics.n"),
    ("string(1.0 / run.metrics.n) != ''", "1.0 / run.metrics.n"),
    ("type(run.metrics.loss) == double", "run.metrics.loss is NaN"),
    ("dyn(run.metrics.acc) / dyn(run.metrics.n) > dyn(0.5)", "dyn(run.metrics.acc) / dyn(run.metrics.n)"),
    ("dyn(run).metrics.loss != dyn(1.0)", "loss"),
    ("(run.metrics.tp + 1.0) / (run.metrics.n * (2.0)) > 0.5", "(run.metrics.tp + 1.0) / (run.metrics.n * (2.0)) is"),
    ("'é(' != '' && 1.0 / run.metrics.n > 0.5", "1.0 / run.metrics.n is inf"),
]


@pytest.mark.parametrize(("expression", "part"), NOT_FINITE)
def test_infinite_or_nan_value_fails_and_is_named(expression: str, part: str) -> None:
    evidence = of_run(expression, BROKEN)
    assert not evidence.passed
    assert part in evidence.detail
    assert recompute(v1.GateEvidence.FromString(evidence.SerializeToString()))


@pytest.mark.parametrize(
    "expression",
    [
        "run.metrics.acc > 0.5 && run.metrics.tp > 0.5",
        "run.metrics.n == 0.0 || run.metrics.tp / run.metrics.n > 0.5",
        "run.metrics.n > 0.0 ? run.metrics.tp / run.metrics.n > 0.5 : run.metrics.acc > 0.5",
        "run.metrics.acc > 0.5 || run.metrics.loss < 0.5",
        "'acc' in run.metrics && has(run.metrics.tp) && !('other' in run.metrics)",
        "[run].all(r, r.metrics.acc > 0.5)",
        "(run.version == 0 ? run.metrics : run.metrics).acc > 0.5",
        "run.params.exists(k, k == 'inf')",
        "double(9223372036854775807) > 1.0",
    ],
)
def test_infinite_or_nan_value_that_is_not_evaluated_is_ignored(expression: str) -> None:
    assert of_run(expression, BROKEN).detail == ""


@given(
    st.recursive(
        st.sampled_from(["run.metrics.a", "run.metrics.b", "0.0", "1.0", "1e308"]),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"),
        max_leaves=8,
    ),
    st.floats(),
    st.floats(),
    st.sampled_from(["{} >= 0.5", "!({} >= 0.5)", "{} != 0.5 || true", "[{}].all(x, x != 0.5)"]),
)
def test_arithmetic_passes_only_over_finite_numbers(arithmetic: str, a: float, b: float, gate: str) -> None:
    evidence = of_run(gate.format(arithmetic), v1.GateRun(run_id="r", metrics={"a": a, "b": b}))
    values = arithmetic_values(arithmetic, a, b)
    if all(map(math.isfinite, values)):
        passes = {"{} >= 0.5": values[-1] >= 0.5, "!({} >= 0.5)": values[-1] < 0.5, "{} != 0.5 || true": True}
        assert evidence.passed == passes.get(gate, values[-1] != 0.5)
    else:
        assert not evidence.passed
    assert recompute(evidence)


def arithmetic_values(expression: str, a: float, b: float) -> list[float]:
    """Return all values that an expression computes, its result last."""
    values: list[float] = []

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            with np.errstate(all="ignore"):
                computed = _OPERATORS[type(node.op)](np.float64(value(node.left)), np.float64(value(node.right)))
            values.append(float(computed))
        else:
            values.append(node.value if isinstance(node, ast.Constant) else {"a": a, "b": b}[node.attr])  # type: ignore[arg-type, attr-defined]
        return values[-1]

    value(ast.parse(expression, mode="eval").body)
    return values


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@pytest.mark.parametrize(
    ("expression", "metrics", "passed"),
    [
        ("run.metrics.tp / run.metrics.n > 0.5", {"tp": 1.0, "n": 0.0}, True),
        ("run.metrics.n / run.metrics.n != 0.5", {"n": 0.0}, True),
        ("run.metrics.top > 1e308", {"top": float("inf")}, True),
        ("run.metrics.loss != 0.5", {"loss": float("nan")}, False),
        ("!has(run.metrics.loss)", {"loss": float("nan")}, True),
        ("run.metrics.all(k, run.metrics[k] > 0.5)", {"acc": 0.9, "loss": float("nan")}, True),
    ],
)
def test_evidence_of_first_rules_is_recomputed_by_first_rules(
    expression: str, metrics: dict[str, float], passed: bool
) -> None:
    recorded = v1.GateEvidence(expression=expression, run=v1.GateRun(run_id="r", metrics=metrics), passed=passed)
    assert recompute(recorded)
    assert not of_run(expression, recorded.run).passed


def test_evidence_of_unknown_rules_is_not_recomputed() -> None:
    evidence = of_run("run.metrics.acc > 0.5")
    assert (evidence.rules, evaluate_again(evidence)) == (RULES, evidence)
    evidence.rules = RULES + 1
    assert not recompute(evidence)
    assert "newer release" in evaluate_again(evidence).detail


@pytest.mark.parametrize(
    "expression",
    [
        " + ".join(["run.metrics.acc"] * 15) + " > 1.0",
        " && ".join(["run.metrics.acc > 0.5"] * 30),
        "1.0 / (" * 9 + "run.metrics.acc" + ")" * 9 + " > 0.5",
        "run.metrics.acc < 0.5 ? false : (" * 9 + "true" + ")" * 9,
    ],
)
def test_long_expression_is_accepted(expression: str) -> None:
    assert of_run(expression).detail == ""


@pytest.mark.parametrize(
    ("expression", "place", "hint"),
    [
        ("run.metric.acc > 1.0", 4, "did you mean 'metrics'"),
        ("rum.metrics.acc > 1.0", 12, "'rum.metrics.acc'"),
        ("run.metrics.acc => 0.5", 17, "write >="),
        ("run.metrics.acc > 1", 17, "a metric is a double"),
        ("run.metrics.acc > 0.5 &&\n run.metrics.f1 < 2", 42, "a metric is a double"),
        ("'é' == '' && foo", 14, "'foo'"),
        ("run.metrics.acc >", 18, "incomplete"),
    ],
)
def test_rejection_marks_place_and_gives_hint(expression: str, place: int, hint: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_expression(expression, of_move=False)
    assert (refused.value.reason, refused.value.metadata["place"]) == ("INVALID_GATE", str(place))
    assert hint in refused.value.message
    assert ("double" in refused.value.message) == ("double" in hint)
    assert refused.value.message.isprintable()


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_accepted_or_rejected_as_gate(expression: str, move: bool) -> None:
    reasons = {""}
    try:
        check_expression(expression, of_move=move)
    except Rejected as error:
        reasons = {error.reason}
    assert reasons <= {"", "INVALID_GATE"}


@given(st.floats(), st.floats(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.booleans())
def test_comparison_with_infinite_or_nan_value_does_not_pass(
    left: float, right: float, sign: str, negated: bool
) -> None:
    expression = f"run.metrics.one {sign} run.metrics.other"
    run = v1.GateRun(run_id="r", metrics={"one": left, "other": right})
    evidence = of_run(f"!({expression})" if negated else expression, run)
    if not (math.isfinite(left) and math.isfinite(right)):
        assert not evidence.passed
    else:
        holds = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right, "==": left == right}
        assert evidence.passed == (holds.get(sign, left != right) != negated)
    assert recompute(evidence)


class TestMove:
    """Gates of moves: they see the candidate, the current version and the champion."""

    @pytest.mark.parametrize(
        ("expression", "passed"),
        [
            ("candidate.metrics.f1 >= champion.metrics.f1 + 0.01", True),
            ("candidate.metrics.auc >= champion.metrics.auc", False),
            ("current.version == 0 && champion.version == 2 && candidate.version > champion.version", True),
            ("candidate.tags.team == 'risk'", True),
            ("candidate.metrics.all(k, k in champion.metrics && candidate.metrics[k] >= champion.metrics[k])", False),
            ("[candidate, champion].exists(r, r.metrics.auc > 0.74)", True),
            ("candidate.run_id != champion.run_id", True),
            ("candidate == champion", False),
        ],
    )
    def test_move_gate_compares_candidate_current_and_champion(self, expression: str, passed: bool) -> None:
        evidence = of_move(expression)
        assert (evidence.passed, evidence.policy) == (passed, "policy")
        assert set(evidence.others) == {"current", "champion"}
        assert recompute(evidence)

    def test_first_move_passes_only_gate_that_allows_missing_champion(self) -> None:
        better = "candidate.metrics.f1 > champion.metrics.f1"
        refused = of_move(better, champion=NO_RUN)
        assert not refused.passed
        assert "champion" in refused.detail
        assert of_move(f"champion.version == 0 || {better}", champion=NO_RUN).passed

    def test_version_without_run_has_no_metrics(self) -> None:
        assert not of_move("candidate.metrics.f1 > 0.1", candidate=v1.GateRun(version=4)).passed
        assert of_move("candidate.version == 4", candidate=v1.GateRun(version=4)).passed


def test_registration_without_run_passes_no_gate() -> None:
    evidence = of_run("true", v1.GateRun(tags={"team": "risk"}))
    assert not evidence.passed
    assert recompute(evidence)


class TestEvidence:
    """Evidence: exactly the values that the gate read."""

    WIDE = v1.GateRun(
        run_id="r",
        version=4,
        metrics={f"m{number}": float(number) for number in range(10)},
        params={f"p{number}": str(number) for number in range(10)},
        tags={f"t{number}": str(number) for number in range(10)},
    )

    @pytest.mark.parametrize(
        ("expression", "metrics", "params", "tags"),
        [
            ("run.metrics.m1 > run.metrics['m2']", {"m1", "m2"}, set(), set()),
            ("has(run.params.p1) && 'm3' in run.metrics", {"m3"}, {"p1"}, set()),
            ("run.tags.t1 == run.params.p2", set(), {"p2"}, {"t1"}),
            ("run.metrics.exists(k, run.metrics[k] > 0.5)", set(WIDE.metrics), set(), set()),
            ("run.metrics[run.params.p1] > 0.5", set(WIDE.metrics), {"p1"}, set()),
            ("run.params.size() > 1", set(), set(WIDE.params), set()),
            ("[run].exists(r, r.version > 0)", set(WIDE.metrics), set(WIDE.params), set(WIDE.tags)),
            ("run.run_id == 'r'", set(), set(), set()),
        ],
    )
    def test_evidence_has_values_that_gate_reads(
        self, expression: str, metrics: set[str], params: set[str], tags: set[str]
    ) -> None:
        evidence = of_run(expression, self.WIDE)
        assert (set(evidence.run.metrics), set(evidence.run.params), set(evidence.run.tags)) == (metrics, params, tags)
        assert (evidence.run.run_id, evidence.run.version) == ("r", 4)

    def test_evidence_keeps_nan(self) -> None:
        assert math.isnan(of_run("run.metrics.loss < 0.5", BROKEN).run.metrics["loss"])

    def test_tampered_evidence_is_detected(self) -> None:
        evidence = of_move("candidate.metrics.f1 >= champion.metrics.f1 + 0.01")
        evidence.others["champion"].metrics["f1"] = 0.95
        assert not recompute(evidence)
        evidence.passed = False
        assert recompute(evidence)

    def test_evidence_survives_serialization(self) -> None:
        evidence = of_move("candidate.metrics.f1 >= champion.metrics.f1 + 0.01")
        assert recompute(v1.GateEvidence.FromString(evidence.SerializeToString()))


def test_detail_names_values_that_failed() -> None:
    assert "acc = 0.9" in of_run("run.metrics.acc > 0.95").detail
    assert "has no f1" in of_run("run.metrics.f1 > 0.5").detail
    long = v1.GateRun(run_id="r", metrics={f"m{number}": 0.0 for number in range(3000)})
    assert len(of_run("run.metrics.all(k, run.metrics[k] > 0.0)", long).detail) < 1000
