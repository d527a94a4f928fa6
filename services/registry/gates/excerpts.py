"""Excerpts of a gate's text: the part that a node of its syntax tree was parsed from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from services.registry.gates.cost import all_nodes

# Strings, then names and numbers, then single characters: enough to cut a part out of an expression.
_TOKEN = re.compile(
    r"[rRbB]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')|\w+(?:\.\d+)?(?:[eE][+-]?\d+)?|.",
    re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"


def excerpt(expression: str, checked: Any, node_id: int) -> str:
    """Return the text of a node; the whole expression when the tree does not say where the node is.

    The parser records one offset per node: an operator's sign, the dot of a field, the bracket of a call. The part
    spans all of those, and is then extended to whole tokens and closed brackets.
    """
    offsets = sorted(_offsets(checked, node_id))
    tokens = [
        (matched.start(), matched.group()) for matched in _TOKEN.finditer(expression) if not matched.group().isspace()
    ]
    if not offsets or not tokens:
        return expression
    first = max((at for at, (start, _) in enumerate(tokens) if start <= offsets[0]), default=0)
    last = max((at for at, (start, _) in enumerate(tokens) if start <= offsets[-1]), default=0)
    first, last = _extended([text for _, text in tokens], first, last)
    return expression[tokens[first][0] : tokens[last][0] + len(tokens[last][1])]


def _offsets(checked: Any, node_id: int) -> Iterator[int]:
    positions = {entry.key: entry.value for entry in checked.source_info.positions}
    node = next((expr for expr in all_nodes(checked.expr) if expr.id == node_id), checked.expr)
    return (positions[expr.id] for expr in all_nodes(node) if expr.id in positions)


def _extended(tokens: list[str], first: int, last: int) -> tuple[int, int]:
    if tokens[first] == "(" and first and tokens[first - 1].isidentifier():
        first -= 1
    if tokens[last] in {".", "-"} and last + 1 < len(tokens):
        last += 1
    depth = lowest = 0
    for text in tokens[first : last + 1]:
        depth += (text in _OPENING) - (text in _CLOSING)
        lowest = min(lowest, depth)
    unopened, unclosed = -lowest, depth - lowest
    while unopened and first:
        first -= 1
        unopened += (tokens[first] in _CLOSING) - (tokens[first] in _OPENING)
    while unclosed and last + 1 < len(tokens):
        last += 1
        unclosed += (tokens[last] in _OPENING) - (tokens[last] in _CLOSING)
    return first, last
