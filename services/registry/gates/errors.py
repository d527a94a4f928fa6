"""Error messages for a gate's text, with the place of the error and a hint if there is one."""

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
    """Return the error INVALID_GATE; `place` is the number of the wrong character, from 1."""
    refusal = Rejected(Kind.INVALID, "INVALID_GATE", f"invalid gate: {fault}")
    if place:
        refusal.metadata["place"] = str(place)
    return refusal


def unreadable(expression: str, error: str, names: Sequence[str]) -> Rejected:
    """Return the error for an expression that does not compile.

    Args:
        expression: The gate.
        error: CEL's message, of which the first error is shown.
        names: The names of the variables.
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
        hint = ": a metric is a double, so write 1.0, not 1" if matched["types"] in _MIXED else ""
        return f"{sign} does not accept {matched['types']}{hint}"
    if matched := _FIELD.search(text):
        return f"no field {matched['name']!r}{_near(matched['name'], RUN_FIELDS)}"
    if matched := _REFERENCE.search(text):
        return f"no variable or function {matched['name']!r}{_near(matched['name'].partition('.')[0], names)}"
    if matched := _TOKEN.search(text):
        token = matched["token"].strip()
        return f"unexpected {token}" + (f": {_HINTS[token]}" if token in _HINTS else "")
    if matched := _UNEXPECTED.search(text):
        token = matched["token"]
        return "the expression is incomplete" if token in {None, "<EOF>"} else f"unexpected {token}"
    return text


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f": expected one of {', '.join(known)}"
