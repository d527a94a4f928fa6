"""What is wrong with a gate's text, said with the place, and with a hint where one is apt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from eventstore import Kind, Rejected

RUN_FIELDS = ("metrics", "params", "run_id", "tags", "version")

_MAX_EXCERPT = 30
_ERROR = re.compile(r"ERROR: <input>:(?P<line>\d+):(?P<column>\d+): (?P<text>[^\n]*)")
_OVERLOAD = re.compile(r"found no matching overload for '(?P<name>[^']+)' applied to '(?P<types>[^']+)'")
_FIELD = re.compile(r"undefined field '(?P<name>[^']*)'")
_REFERENCE = re.compile(r"undeclared reference to '(?P<name>[^']*)'")
_TOKEN = re.compile(r"token recognition error at: '(?P<token>[^']*)")
_UNEXPECTED = re.compile(r"(?:mismatched|extraneous) input '(?P<token>.*?)' expecting|no viable alternative at input")

_MIXED = ("(double, int)", "(int, double)")
_HINTS = {"=>": "write >=", "=<": "write <=", "&": "write &&", "|": "write ||", "=": "write =="}


def invalid(fault: str, place: int = 0) -> Rejected:
    """Return the refusal INVALID_GATE; `place` is the character of the text that is at fault, from 1 on."""
    refusal = Rejected(Kind.INVALID, "INVALID_GATE", f"not a gate: {fault}")
    if place:
        refusal.metadata["place"] = str(place)
    return refusal


def unreadable(expression: str, error: str, names: Sequence[str]) -> Rejected:
    """Return the refusal of an expression that does not compile over the variables of these names.

    Args:
        expression: The gate.
        error: What CEL says of it, of which the first error is shown.
        names: The variables.
    """
    matched = _ERROR.search(error)
    if not matched:
        return invalid("it is nested too deeply" if "recursion" in error else error)
    place = _offset(expression, int(matched["line"]), int(matched["column"]))
    at = expression[place : place + _MAX_EXCERPT]
    where = f"at character {place + 1}, {at!r}" if at.strip() else "at the end"
    return invalid(f"{where}: {_explained(matched['text'], names)}", place + 1)


def _offset(expression: str, line: int, column: int) -> int:
    return sum(len(before) + 1 for before in expression.split("\n")[: line - 1]) + column - 1


def _explained(text: str, names: Sequence[str]) -> str:
    if matched := _OVERLOAD.search(text):
        sign = matched["name"].replace("_", "").replace("@", "") or matched["name"]
        hint = "; a metric is a double: write 1.0, not 1" if matched["types"] in _MIXED else ""
        return f"{sign} takes no {matched['types']}{hint}"
    if matched := _FIELD.search(text):
        return f"no field {matched['name']!r}{_near(matched['name'], RUN_FIELDS)}"
    if matched := _REFERENCE.search(text):
        return f"no variable or function {matched['name']!r}{_near(matched['name'].partition('.')[0], names)}"
    if matched := _TOKEN.search(text):
        token = matched["token"].strip()
        return f"{token} is not expected here" + (f": {_HINTS[token]}" if token in _HINTS else "")
    if matched := _UNEXPECTED.search(text):
        token = matched["token"]
        return "the expression is incomplete" if token in {None, "<EOF>"} else f"{token} is not expected here"
    return text


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f": expected one of {', '.join(known)}"
