"""Quality gates: CEL expressions over runs, compiled against their type and evaluated within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from eventstore import Rejected
from rollforward import v1
from services.registry.gates.cost import Syntax
from services.registry.gates.errors import invalid, unreadable
from services.registry.gates.finite_numbers import FUNCTIONS, Guarded, guard

REGISTRATION: tuple[str, ...] = ("run",)
MOVE: tuple[str, ...] = ("candidate", "current", "champion")

MAX_EXPRESSION = 4000
MAX_STEPS = 200_000
MAX_NAMED = 20

RULES_BEFORE_FINITE = 0
RULES = 1
"""The rules by which gates are evaluated now; evidence names those that it was computed by."""

_UNSET_ALIAS = {"current": "no version holds the alias", "champion": "no version holds @champion"}


def _seen_by_gates() -> Any:
    """Return `GateRun` with the same encoding, but `version` as CEL's int, to allow ``version == 0``."""
    file = descriptor_pb2.FileDescriptorProto(name="gate.proto", package="gate", syntax="proto3")
    v1.GateRun.DESCRIPTOR.CopyToProto(file.message_type.add())
    for field in file.message_type[0].field:
        if field.type_name:
            field.type_name = field.type_name.replace(v1.GateRun.DESCRIPTOR.full_name, "gate.GateRun")
        if field.name == "version":
            field.type = field.TYPE_INT64
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("gate.GateRun"))


_Seen = _seen_by_gates()


def _environment(names: tuple[str, ...], functions: Sequence[cel.FunctionDecl] = ()) -> cel.Env:
    run = cel.Type(_Seen.DESCRIPTOR.full_name)
    return cel.NewEnv(_Seen.DESCRIPTOR.file.pool, variables=dict.fromkeys(names, run), functions=functions)


_ENVIRONMENTS = {names: _environment(names) for names in (REGISTRATION, MOVE)}
_GUARDED = {names: _environment(names, FUNCTIONS) for names in (REGISTRATION, MOVE)}


@dataclass(frozen=True)
class _Gate:
    expression: str
    names: tuple[str, ...]
    program: cel.Expression
    syntax: Syntax

    @cached_property
    def guarded(self) -> Guarded:
        """Return the gate with its numbers inspected. Raises `Rejected` INVALID_GATE when it is nested too deeply."""
        try:
            return guard(self.expression, self.syntax, _GUARDED[self.names])
        except (DecodeError, RuntimeError, ValueError) as error:
            raise invalid("it is too deeply nested") from error


def check_expression(expression: str, *, of_move: bool) -> None:
    """Raise `Rejected` INVALID_GATE unless the expression can be a gate: of moves, or else of registrations.

    It can when it compiles over the gate's variables, is true or false, and does nothing that might cost any amount.
    """
    gate = _compiled(expression, MOVE if of_move else REGISTRATION)
    if too_much := _too_much(gate.guarded.syntax, 0):
        raise invalid(too_much)


@lru_cache(maxsize=1024)
def _compiled(expression: str, names: tuple[str, ...]) -> _Gate:
    if len(expression) > MAX_EXPRESSION:
        raise invalid(f"expected at most {MAX_EXPRESSION} characters, got {len(expression)}")
    try:
        program = _ENVIRONMENTS[names].compile(expression)
    except RuntimeError as error:
        raise unreadable(expression, str(error), names) from error
    if program.return_type() != cel.Type.BOOL:
        raise invalid("expected true or false as the result")
    try:
        syntax = Syntax(program.serialize(), frozenset(names))
    except ValueError as error:
        raise invalid(str(error)) from error
    if objection := syntax.objection or _too_much(syntax, 0):
        raise invalid(objection)
    return _Gate(expression, names, program, syntax)


def _too_much(syntax: Syntax, width: int) -> str:
    steps = syntax.steps(width)
    return f"it is too expensive: {steps:,} steps, expected at most {MAX_STEPS:,}" if steps > MAX_STEPS else ""


def evaluate(
    expression: str,
    variables: Mapping[str, v1.GateRun],
    tracking_position: int,
    policy: str = "",
    rules: int = RULES,
) -> v1.GateEvidence:
    """Return what a gate says: anything but a plain `true` is a refusal, be it false, an error or too much work.

    A number that is not finite refuses, whether a metric that the gate reads or a value that it computes: no
    comparison with one, not even a negated one, may let a run pass. The evidence has those metrics, parameters and tags
    that the expression looks at, and is all that the answer comes from.

    Args:
        expression: The gate.
        variables: `run` for a gate of registrations; `candidate`, `current` and `champion` for one of moves. A
            version of 0 says that there is none.
        tracking_position: The position of the tracking log at which the runs were read.
        policy: The policy whose gate it is.
        rules: The rules of evaluation, `RULES` except for recorded evidence.
    """
    names = REGISTRATION if "run" in variables else MOVE
    try:
        gate = _compiled(expression, names)
    except Rejected as refusal:
        seen = {name: v1.GateRun(run_id=variables[name].run_id, version=variables[name].version) for name in names}
        detail = refusal.message
    else:
        seen = {name: _looked_at(variables[name], name, gate.syntax) for name in names}
        detail = _rejection(gate, seen, rules)
    return v1.GateEvidence(
        expression=expression,
        run=seen.pop(names[0]),
        others=seen,
        tracking_position=tracking_position,
        passed=not detail,
        detail=detail,
        policy=policy,
        rules=rules,
    )


def recompute(evidence: v1.GateEvidence) -> bool:
    """Return whether the gate's recorded result equals the one computed again from the evidence."""
    return evaluate_again(evidence).passed == evidence.passed


def evaluate_again(evidence: v1.GateEvidence) -> v1.GateEvidence:
    """Evaluate a gate again, from its evidence alone and by the rules that the evidence names."""
    first = MOVE[0] if evidence.others else REGISTRATION[0]
    variables = {first: evidence.run} | dict(evidence.others)
    return evaluate(evidence.expression, variables, evidence.tracking_position, evidence.policy, evidence.rules)


def _looked_at(run: v1.GateRun, name: str, syntax: Syntax) -> v1.GateRun:
    seen = v1.GateRun(run_id=run.run_id, version=run.version)
    for (variable, field), keys in syntax.reads.items():
        if variable == name:
            values = getattr(run, field)
            getattr(seen, field).update(values if keys is None else {key: values[key] for key in keys if key in values})
    return seen


def _rejection(gate: _Gate, seen: Mapping[str, v1.GateRun], rules: int) -> str:
    """Return why the gate fails; empty if it passes."""
    if "run" in seen and not seen["run"].run_id:
        return "the version has no run to evaluate"
    width = max(len(values) for run in seen.values() for values in (run.metrics, run.params, run.tags))
    if rules == RULES:
        return _refusal(gate, seen, width)
    if rules == RULES_BEFORE_FINITE:
        return _refusal_before_finite(gate, seen, width)
    return f"unknown evaluation rules {rules}: a newer release wrote this evidence"


def _refusal(gate: _Gate, seen: Mapping[str, v1.GateRun], width: int) -> str:
    try:
        guarded = gate.guarded
    except Rejected as refusal:
        return refusal.message
    if too_much := _too_much(guarded.syntax, width):
        return too_much
    data = {name: _Seen.FromString(run.SerializeToString()) for name, run in seen.items()}
    value, error, not_finite = guarded.eval(data)
    if not_finite:
        return f"{not_finite}, which is not finite"
    return _refusal_of(gate, seen, value) if value else error


def _refusal_before_finite(gate: _Gate, seen: Mapping[str, v1.GateRun], width: int) -> str:
    """Return why the gate failed by the first rules: NaN metrics were left out, computed numbers not inspected."""
    if too_much := _too_much(gate.syntax, width):
        return too_much
    try:
        value = gate.program.eval(data={name: _Seen.FromString(_without_nan(run)) for name, run in seen.items()})
    except RuntimeError as error:  # such as: iteration budget exceeded
        return str(error)
    return _refusal_of(gate, seen, value)


def _refusal_of(gate: _Gate, seen: Mapping[str, v1.GateRun], value: cel.Value) -> str:
    if value.type() == cel.Type.BOOL and value.value() is True:
        return ""
    lacks = "; ".join(islice(_lacks(gate.syntax, seen), MAX_NAMED))
    if value.type() != cel.Type.BOOL:
        return lacks or str(value.value())
    measured = ", ".join(islice(_measured(seen), MAX_NAMED))
    return "; ".join(filter(None, [f"it is false, with {measured}" if measured else "it is false", lacks]))


def _without_nan(run: v1.GateRun) -> bytes:
    known = v1.GateRun(run_id=run.run_id, params=run.params, version=run.version, tags=run.tags)
    known.metrics.update({key: value for key, value in run.metrics.items() if not math.isnan(value)})
    return known.SerializeToString()


def _measured(seen: Mapping[str, v1.GateRun]) -> Iterator[str]:
    for name, run in seen.items():
        for key in sorted(run.metrics):
            if not math.isnan(run.metrics[key]):
                yield f"{name}.metrics.{key} = {run.metrics[key]:g}"


def _lacks(syntax: Syntax, seen: Mapping[str, v1.GateRun]) -> Iterator[str]:
    for (name, field), keys in sorted(syntax.reads.items()):
        run = seen[name]
        for key in sorted(getattr(run, field) if keys is None else keys):
            if key not in getattr(run, field):
                yield f"{name}.{field} has no {key}{_context(name, field, run)}"
            elif field == "metrics" and math.isnan(run.metrics[key]):
                yield f"{name}.metrics.{key} is NaN"


def _context(name: str, field: str, run: v1.GateRun) -> str:
    if name in _UNSET_ALIAS and not run.version:
        return f": {_UNSET_ALIAS[name]} (to allow this, write {name}.version == 0 || ...)"
    return "" if run.run_id or field == "tags" else ": the version has no run"
