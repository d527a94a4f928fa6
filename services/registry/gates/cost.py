"""A gate's syntax tree, as CEL's checker leaves it: what it may not do, what it costs, and what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

MAPS = frozenset({"metrics", "params", "tags"})
DEEPEST_NEST = 2

# A search for a text in a text, next to a comparison of two numbers.
_SEARCH_STEPS = 1000
_JOINS = frozenset({"add_string", "add_bytes", "add_list"})
_COMPARISONS = frozenset({"equals", "not_equals", "in_list"})

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "double": _FIELD.TYPE_DOUBLE,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}

# Of cel.expr.CheckedExpr, what is looked at: by message and field, the number and the type. "*" says repeated, "|" one
# of several.
_SHAPE: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "CheckedExpr": {
        "references": (2, "*Referenced"),
        "types": (3, "*Typed"),
        "expr": (4, "Expr"),
        "source_info": (5, "Source"),
    },
    "Source": {"positions": (4, "*Position")},
    "Position": {"key": (1, "int64"), "value": (2, "int32")},
    "Referenced": {"id": (1, "int64"), "reference": (2, "Reference")},
    "Reference": {"overloads": (3, "*string")},
    "Typed": {"id": (1, "int64"), "type": (2, "Type")},
    "Type": {
        "dyn": (1, "|Empty"),
        "primitive": (3, "|int32"),
        "list_type": (6, "|Empty"),
        "map_type": (7, "|MapType"),
        "message_type": (9, "|string"),
    },
    "MapType": {"value": (2, "Type")},
    "Empty": {},
    "Expr": {
        "id": (2, "int64"),
        "const": (3, "|Constant"),
        "ident": (4, "|Ident"),
        "select": (5, "|Select"),
        "call": (6, "|Call"),
        "list": (7, "|List"),
        "struct": (8, "|Struct"),
        "comprehension": (9, "|Comprehension"),
    },
    "Constant": {
        "truth": (2, "|bool"),
        "whole": (3, "|int64"),
        "double": (5, "|double"),
        "text": (6, "|string"),
    },
    "Ident": {"name": (1, "string")},
    "Select": {"operand": (1, "Expr"), "field": (2, "string"), "test_only": (3, "bool")},
    "Call": {"target": (1, "Expr"), "function": (2, "string"), "args": (3, "*Expr")},
    "List": {"elements": (1, "*Expr")},
    "Struct": {},
    "Comprehension": {
        "variable": (1, "string"),
        "range": (2, "Expr"),
        "result_variable": (3, "string"),
        "init": (4, "Expr"),
        "condition": (5, "Expr"),
        "step": (6, "Expr"),
        "result": (7, "Expr"),
    },
}


def _checked_expr() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="gate_syntax.proto", package="gate", syntax="proto2")
    for message, fields in _SHAPE.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            if kind.startswith("|"):
                field.oneof_index = 0
            field.type = _SCALARS.get(kind.lstrip("*|"), _FIELD.TYPE_MESSAGE)
            if field.type == _FIELD.TYPE_MESSAGE:
                field.type_name = f".gate.{kind.lstrip('*|')}"
        if any(kind.startswith("|") for _, kind in fields.values()):
            described.oneof_decl.add(name="kind")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("gate.CheckedExpr"))


CheckedExpr = _checked_expr()


@dataclass(frozen=True)
class Syntax:
    """An expression that was checked against types, over the variables of these names.

    Raises:
        ValueError: It is nested too deeply to look at.
    """

    serialized: bytes
    variables: frozenset[str]

    def __post_init__(self) -> None:
        """Parse the expression."""
        _ = self.checked

    @cached_property
    def checked(self) -> Any:
        """Return the tree, as a `CheckedExpr`."""
        try:
            return CheckedExpr.FromString(AnyMessage.FromString(self.serialized).value)
        except DecodeError as error:
            raise ValueError("it is nested too deeply") from error

    @cached_property
    def _overloads(self) -> Mapping[int, frozenset[str]]:
        return {entry.id: frozenset(entry.reference.overloads) for entry in self.checked.references}

    @cached_property
    def _primitives(self) -> frozenset[int]:
        return frozenset(entry.id for entry in self.checked.types if entry.type.HasField("primitive"))

    @cached_property
    def max_list(self) -> int:
        """How many elements the longest list has that is written out."""
        return max((len(expr.list.elements) for expr in all_nodes(self.checked.expr)), default=0)

    @cached_property
    def objection(self) -> str:
        """What it does that no gate may, because its costs could not be bounded; empty when there is nothing."""
        if _nest(self.checked.expr) > DEEPEST_NEST:
            return f"expected all(), exists() and filter() to be nested at most {DEEPEST_NEST} deep"
        return next(self._objections(self.checked.expr, None), "")

    def _objections(self, expr: Any, around: Any) -> Iterator[str]:
        kind = expr.WhichOneof("kind")
        if kind == "struct":
            yield "it makes a map or a message"
        elif kind == "call" and expr.call.function == "matches":
            yield "matches() is not offered: use startsWith(), endsWith() or contains()"
        elif _JOINS & self._overloads.get(expr.id, frozenset()) and not _collects(expr, around):
            yield "map() is not offered, and + adds numbers only: it joins no texts and no lists"
        inner = expr.comprehension if kind == "comprehension" else around
        for child in children(expr):
            yield from self._objections(child, inner)

    def steps(self, width: int) -> int:
        """Return the maximum number of steps, if no map or list that it iterates is longer than `width`."""
        return self._steps(self.checked.expr, max(width, self.max_list, 1))

    def _steps(self, expr: Any, width: int) -> int:
        if expr.WhichOneof("kind") == "comprehension":
            loop = expr.comprehension
            once = sum(self._steps(part, width) for part in (loop.range, loop.init, loop.result))
            return once + width * (self._steps(loop.condition, width) + self._steps(loop.step, width))
        return self._own_steps(expr, width) + sum(self._steps(child, width) for child in children(expr))

    def _own_steps(self, expr: Any, width: int) -> int:
        if expr.call.function == "contains":
            return _SEARCH_STEPS
        if expr.call.function.startswith("@finite_"):
            return width
        overloads = self._overloads.get(expr.id, frozenset())
        if not overloads & _COMPARISONS:
            return 1
        deep = not any(arg.id in self._primitives for arg in expr.call.args)
        return width * width if deep else width if "in_list" in overloads else 1

    @cached_property
    def reads(self) -> Mapping[tuple[str, str], frozenset[str] | None]:
        """By variable and map, the keys that it looks at; None for all of them."""
        keys: dict[tuple[str, str], set[str]] = {}
        whole: set[tuple[str, str]] = set()
        for (variable, field), key in self._looks(self.checked.expr):
            if key is None:
                whole.add((variable, field))
            else:
                keys.setdefault((variable, field), set()).add(key)
        return {place: None if place in whole else frozenset(keys[place]) for place in whole | keys.keys()}

    def _looks(self, expr: Any) -> Iterator[tuple[tuple[str, str], str | None]]:
        if keyed := self._keyed(expr):
            yield keyed
        elif place := self._map(expr):
            yield place, None
        elif expr.ident.name in self.variables:
            yield from (((expr.ident.name, field), None) for field in sorted(MAPS))
        elif expr.select.operand.ident.name not in self.variables:
            for child in children(expr):
                yield from self._looks(child)

    def _keyed(self, expr: Any) -> tuple[tuple[str, str], str] | None:
        place, key = None, ""
        if expr.WhichOneof("kind") == "select":
            place, key = self._map(expr.select.operand), expr.select.field
        elif expr.call.function in {"_[_]", "@in"}:
            within, asked = expr.call.args if expr.call.function == "_[_]" else reversed(expr.call.args)
            if asked.const.HasField("text"):
                place, key = self._map(within), asked.const.text
        return (place, key) if place else None

    def _map(self, expr: Any) -> tuple[str, str] | None:
        """Return the variable and the map of it that an expression names, if it does no more."""
        name, field = expr.select.operand.ident.name, expr.select.field
        return (name, field) if name in self.variables and field in MAPS else None


def children(expr: Any) -> list[Any]:
    """Return the nodes directly below a node."""
    match expr.WhichOneof("kind"):
        case "select":
            return [expr.select.operand]
        case "call":
            return [*([expr.call.target] if expr.call.HasField("target") else []), *expr.call.args]
        case "list":
            return list(expr.list.elements)
        case "comprehension":
            loop = expr.comprehension
            return [loop.range, loop.init, loop.condition, loop.step, loop.result]
        case _:
            return []


def all_nodes(expr: Any) -> Iterator[Any]:
    """Return a node and all nodes below it."""
    yield expr
    for child in children(expr):
        yield from all_nodes(child)


def _nest(expr: Any) -> int:
    if expr.WhichOneof("kind") != "comprehension":
        return max(map(_nest, children(expr)), default=0)
    first, *inner = children(expr)
    return max(_nest(first), 1 + max(map(_nest, inner)))


def _collects(expr: Any, loop: Any) -> bool:
    """Return whether it adds an unchanged element to the elements that a filter() keeps."""
    if loop is None or len(expr.call.args) != 2 or expr.call.args[0].ident.name != loop.result_variable:
        return False
    elements = expr.call.args[1].list.elements
    return len(elements) == 1 and elements[0].ident.name == loop.variable
