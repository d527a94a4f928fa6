"""Gates rewritten so that every number that they compute is inspected: one that is not finite is reported."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cel_expr_python import cel
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from services.registry.gates.cost import CheckedExpr, Syntax, all_nodes, children
from services.registry.gates.excerpts import excerpt

_DOUBLE = 4  # cel.expr.Type.PrimitiveType
_COMPARED = frozenset({"_==_", "_!=_", "@in"})
_LOGIC = frozenset({"_?_:_", "_&&_", "_||_"})
_SUMS = frozenset({"_+_", "_-_", "_*_", "-_"})

# How a value is used: as it is, to look up a key of it, or as a term of a sum or product, which is not finite either
# when the term is not. Terms are left alone: protobuf reads no tree that is deeper than 100 messages.
_Use = Literal["value", "key", "term"]


class _Inspection(threading.local):
    """The ids and values of the parts that were not finite, in the evaluation that this thread is in."""

    def __init__(self) -> None:
        """Start with none."""
        self.parts: list[tuple[int, Any]] = []


_inspection = _Inspection()


def _inspect(part: int, value: Any) -> Any:
    if any(True for _ in _not_finite(value)):
        _inspection.parts.append((part, value))
    return value


def _inspect_known(part: int, value: float) -> bool:
    _inspect(part, value)
    return True


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Return the numbers in a value that are not finite, each with where in the value it is."""
    match value:
        case float():
            if not math.isfinite(value):
                yield path, value
        case Mapping():
            for key in sorted(value, key=str):
                yield from _not_finite(value[key], f"{path}.{key}".lstrip("."))
        case list():
            for inner in value:
                yield from _not_finite(inner, path)
        case Message():
            yield from _not_finite(dict(value.metrics), "metrics")  # type: ignore[attr-defined]
        case _:
            pass


_MAP = cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE)
_ANYTHING = cel.Type.List(cel.Type.DYN)


def _function(name: str, takes: cel.Type, gives: cel.Type, inspect: Callable[..., Any]) -> cel.FunctionDecl:
    return cel.FunctionDecl(name, [cel.Overload(name, gives, [cel.Type.INT, takes], impl=inspect)])


# No gate can name these: "@" is no letter of CEL's.
FUNCTIONS = (
    _function("@finite", cel.Type.DOUBLE, cel.Type.DOUBLE, _inspect),
    _function("@finite_map", _MAP, _MAP, _inspect),
    _function("@finite_list", _ANYTHING, _ANYTHING, _inspect),
    _function("@known", cel.Type.DOUBLE, cel.Type.BOOL, _inspect_known),
)


@dataclass(frozen=True, slots=True)
class NotFinite:
    """A part of an expression whose value was infinite or NaN."""

    part: str
    value: Any

    def __str__(self) -> str:
        """Return what the part gave, such as ``run.metrics.tp / run.metrics.n is inf``."""
        path, value = next(_not_finite(self.value))
        return f"{self.part} {'has ' + path + ' = ' if path else 'is '}{number(value)}"


def number(value: float) -> str:
    """Return a double as messages show it."""
    return "NaN" if math.isnan(value) else f"{value:g}"


@dataclass(frozen=True)
class Guarded:
    """A gate whose evaluation reports the parts that were not finite.

    Args:
        expression: The gate's text, from which the parts are named.
        syntax: Its tree, rewritten by `guard`.
        program: What evaluates that tree.
    """

    expression: str
    syntax: Syntax
    program: cel.Expression

    def eval(self, data: Mapping[str, Any]) -> tuple[cel.Value | None, str, NotFinite | None]:
        """Return the value, or the error's text, and the first part that was not finite."""
        _inspection.parts = []
        value, error = None, ""
        try:
            value = self.program.eval(data=data)
        except RuntimeError as failure:  # such as: iteration budget exceeded
            error = str(failure)
        parts, _inspection.parts = _inspection.parts, []
        first = next((NotFinite(self._text(part), bad) for part, bad in parts), None)
        return value, error, first

    def _text(self, part: int) -> str:
        return excerpt(self.expression, self.syntax.checked, part)


def guard(expression: str, syntax: Syntax, environment: cel.Env) -> Guarded:
    """Return a gate with every number that it computes, and every metric that it reads, inspected.

    A value that CEL does not compute, because of `&&`, `||` or `?:`, is not inspected. Loops do not stop early: what
    they report must not depend on the order of a map. A key of the metrics that is looked up counts as a read of that
    metric; any other use of a run's metrics counts as a read of all of them.
    """
    checked = CheckedExpr.FromString(syntax.checked.SerializeToString())
    checked.expr.CopyFrom(_Rewriting(checked).rewrite(checked.expr))
    packed = AnyMessage(type_url="type.googleapis.com/cel.expr.CheckedExpr", value=checked.SerializeToString())
    serialized = packed.SerializeToString()
    return Guarded(expression, Syntax(serialized, syntax.variables), environment.deserialize(serialized))


@dataclass
class _Rewriting:
    checked: Any
    types: dict[int, Any] = field(init=False)
    next_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.types = {typed.id: typed.type for typed in self.checked.types}
        self.next_id = 1 + max((expr.id for expr in all_nodes(self.checked.expr)), default=0)

    def rewrite(self, expr: Any, use: _Use = "value") -> Any:
        """Return a tree with its parts inspected."""
        if asked := self._asked_key(expr):
            return self._presence(expr, *asked)
        result = _copy(expr)
        for child, new in zip(children(result), list(self._children(expr, use)), strict=True):
            child.CopyFrom(new)
        if expr.WhichOneof("kind") == "comprehension":
            self._go_through_all(result.comprehension)
        return self._inspected(expr, result, use)

    def _children(self, expr: Any, use: _Use) -> Iterator[Any]:
        function = expr.call.function
        for place, child in enumerate(children(expr)):
            new = self.rewrite(child, _use_of(expr, place, use))
            yield self._whole(child, new) if function in _COMPARED else new

    def _inspected(self, expr: Any, result: Any, use: _Use) -> Any:
        kind, type_, function = expr.WhichOneof("kind"), self._type(expr), expr.call.function
        if function in _LOGIC or expr.select.test_only or (use == "term" and function in _SUMS):
            return result
        if _is_metrics(type_) and use != "key":
            return self._call("@finite_map", self._id_of(expr), result)
        if kind == "ident" or (kind == "const" and math.isfinite(expr.const.double)):
            return result
        if type_.primitive == _DOUBLE:
            return self._call("@finite", self._id_of(expr), result)
        return self._listed(expr, result) if type_.HasField("dyn") else result

    def _whole(self, expr: Any, result: Any) -> Any:
        """Inspect an operand of a comparison for the numbers within it."""
        type_ = self._type(expr)
        inner = type_.HasField("message_type") or type_.HasField("list_type")
        return self._listed(expr, result) if inner else result

    def _listed(self, expr: Any, result: Any) -> Any:
        wrapped = self._new()
        wrapped.list.elements.append(result)
        return self._call("_[_]", self._call("@finite_list", self._id_of(expr), wrapped), self._constant(0))

    def _asked_key(self, expr: Any) -> tuple[Any, Any] | None:
        """Return the metrics and the key whose presence an expression asks for, if both are plain."""
        if expr.select.test_only:
            key = self._new()
            key.const.text = expr.select.field
            metrics = expr.select.operand
        elif expr.call.function == "@in":
            key, metrics = expr.call.args
        else:
            return None
        plain = _is_metrics(self._type(metrics)) and _is_plain(metrics) and _is_plain(key)
        return (metrics, key) if plain else None

    def _presence(self, expr: Any, metrics: Any, key: Any) -> Any:
        read = self._call("_[_]", metrics, key)
        return self._call("_?_:_", expr, self._call("@known", self._id_of(expr), read), self._constant(value=False))

    def _go_through_all(self, loop: Any) -> None:
        loop.condition.CopyFrom(self._constant(value=True))
        if loop.step.call.function in {"_&&_", "_||_"}:
            accumulated, new = loop.step.call.args
            first = _copy(new)
            new.CopyFrom(accumulated)
            accumulated.CopyFrom(first)

    def _type(self, expr: Any) -> Any:
        return self.types.get(expr.id, _UNTYPED)

    def _new(self) -> Any:
        self.next_id += 1
        return type(self.checked.expr)(id=self.next_id)

    def _constant(self, value: bool | int) -> Any:
        constant = self._new()
        if isinstance(value, bool):
            constant.const.truth = value
        else:
            constant.const.whole = value
        return constant

    def _id_of(self, expr: Any) -> Any:
        return self._constant(expr.id)

    def _call(self, function: str, *args: Any) -> Any:
        call = self._new()
        call.call.function = function
        call.call.args.extend(args)
        return call


_UNTYPED = type(CheckedExpr().types.add().type)()


def _use_of(expr: Any, place: int, use: _Use) -> _Use:
    """Return how an expression uses its child at a place, when it is itself used like that."""
    kind, function = expr.WhichOneof("kind"), expr.call.function
    if (kind == "select" and not expr.select.test_only) or (function == "_[_]" and place == 0):
        return "key"
    if function in _SUMS or (function == "_/_" and place == 0):
        return "term"
    return use if function == "_?_:_" and place > 0 else "value"


def _copy(expr: Any) -> Any:
    return type(expr).FromString(expr.SerializeToString())


def _is_metrics(type_: Any) -> bool:
    return bool(type_.HasField("map_type") and type_.map_type.value.primitive == _DOUBLE)


def _is_plain(expr: Any) -> bool:
    """Return whether an expression only names something, so that it may be computed twice."""
    while expr.WhichOneof("kind") == "select":
        expr = expr.select.operand
    return expr.WhichOneof("kind") in {"const", "ident"}
