"""Filters and orders of listings: their grammar, and errors with the place in the text.

A filter joins comparisons by AND: ``name LIKE 'fraud%' AND tags.team = 'risk' AND created >= 1700000000000``. A key
is a field, bare or quoted (`"name"`), or an entry of a keyed field: ``tags.team``, ``metrics."val acc"``. A text is
quoted; a quote in it is doubled. In a pattern "%" is any text and "_" any character; a literal one follows a
backslash.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from eventstore import Kind, Rejected
from services.timestamps import parse_time

MAX_CHARACTERS = 10_000
MAX_COMPARISONS = 100
MAX_ORDERS = 20

Scalar = str | int | float


_TEXTS = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
_NUMBERS = ("=", "!=", "<", "<=", ">", ">=")


class Holds(enum.Enum):
    """A field of a filter: how it can be compared, and whether a key after a dot selects one of many values."""

    TEXT = (_TEXTS, False)
    STATUS = (_TEXTS, False, "one of the field's message, in any case")
    ID = (("=", "!=", "IN", "NOT IN"), False)
    NUMBER = (_NUMBERS, False)
    TIME = (_NUMBERS, False, "milliseconds since 1970, or RFC 3339 in quotes")
    TAGS = ((*_TEXTS, "IS NULL", "IS NOT NULL"), True)
    METRICS = (_NUMBERS, True)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of the field."""
        operators: tuple[str, ...] = self.value[0]
        return operators

    @property
    def keyed(self) -> bool:
        """Whether there are many values, each with its key."""
        return bool(self.value[1])


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a listing."""

    name: str
    holds: Holds
    choices: tuple[str, ...] = ()
    """The possible values of a status, in capitals."""


Fields = Mapping[str, Field]
"""The fields of a listing by all their names; a name may have a dot."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition: a field, its `key` if any, an operator and a value."""

    field: str
    operator: str
    value: Scalar | tuple[str, ...] | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One field to sort by, with its `key` if any."""

    field: str
    descending: bool = False
    key: str = ""


def parse_filter(text: str, fields: Fields) -> tuple[Comparison, ...]:
    """Parse a filter into comparisons; an empty one has none. Raises `Rejected` INVALID_FILTER."""
    reader = _Reader(text, "INVALID_FILTER")
    if reader.at_end():
        return ()
    comparisons = [_comparison(reader, fields)]
    while not reader.at_end():
        reader.word("AND")
        if len(comparisons) == MAX_COMPARISONS:
            reader.refuse(f"at most {MAX_COMPARISONS} comparisons")
        comparisons.append(_comparison(reader, fields))
    return tuple(comparisons)


def parse_order(text: str, fields: Fields) -> tuple[Order, ...]:
    """Parse an order such as ``created DESC, name``; an empty one has no fields. Raises `Rejected` INVALID_ORDER."""
    reader = _Reader(text, "INVALID_ORDER")
    orders: list[Order] = []
    while not reader.at_end():
        if orders and not reader.take(_COMMA):
            reader.refuse("a comma")
        if len(orders) == MAX_ORDERS:
            reader.refuse(f"at most {MAX_ORDERS} fields")
        field, key = _field(reader, fields)
        if (field.name, key) in {(order.field, order.key) for order in orders}:
            reader.refuse("a field that was not named before", at=reader.began)
        descending = bool(reader.take(_DESC))
        if not descending:
            reader.take(_ASC)
        orders.append(Order(field.name, descending, key))
    if not orders and text.strip():
        reader.refuse("a field")
    return tuple(orders)


_PART = r"""(?:(?P<{0}>{1})|"(?P<{0}_in_quotes>(?:[^"]|"")+)"|`(?P<{0}_in_ticks>(?:[^`]|``)+)`)"""
_AFTER_DOT = _PART.format("key", r"[\w./-]*\w") + r"""|'(?P<key_in_apostrophes>(?:[^']|'')+)'"""
_KEY = re.compile(_PART.format("name", r"[^\W\d]\w*") + rf"(?:\.(?:{_AFTER_DOT}))?")
_TEXT = re.compile(r"""'(?P<single>(?:[^']|'')*)'|"(?P<double>(?:[^"]|"")*)\"""")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w)", re.ASCII)
_OPERATOR = re.compile(
    r"!=|<=|>=|=|<|>|(?:LIKE|ILIKE|(?:NOT\s+)?IN|IS(?:\s+NOT)?\s+NULL)(?!\w)", re.ASCII | re.IGNORECASE
)
_OPEN, _CLOSE, _COMMA = (re.compile(re.escape(sign)) for sign in "(),")
_ASC, _DESC = (re.compile(rf"{word}(?!\w)", re.IGNORECASE) for word in ("ASC", "DESC"))
_BLANKS = re.compile(r"\s*")
_ATTRIBUTE = {"attribute", "attributes", "attr", "run"}


class _Reader:
    """A reader of a text; `began` is where the last token begins."""

    def __init__(self, text: str, reason: str) -> None:
        self._text = text
        self._reason = reason
        self._at = 0
        self.began = 0
        if len(text) > MAX_CHARACTERS:
            self.refuse(f"at most {MAX_CHARACTERS} characters", at=MAX_CHARACTERS)
        if "\0" in text:
            self.refuse("no NUL", at=text.index("\0"))

    def at_end(self) -> bool:
        """Return whether only blanks are left."""
        self._skip()
        return self._at == len(self._text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read the next token if it matches, else return None."""
        self._skip()
        token = pattern.match(self._text, self._at)
        if token:
            self.began, self._at = token.span()
        return token

    def need(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        """Read the next token, which must match."""
        return self.take(pattern) or self.refuse(expected)

    def word(self, word: str) -> None:
        """Read a word."""
        self.need(re.compile(rf"{word}(?!\w)", re.IGNORECASE), word)

    def refuse(self, expected: str, *, at: int | None = None) -> NoReturn:
        """Raise `Rejected`: another token is expected at a place, by default the place of the next token."""
        place = self._at if at is None else at
        token = self._text[place : place + 30]
        actual = repr(token) if token else "the end"
        message = f"at character {place + 1} of {self._text[:200]!r}: expected {expected}, got {actual}"
        raise Rejected(Kind.INVALID, self._reason, message, place=str(place + 1), expected=expected, found=token)

    def _skip(self) -> None:
        blanks = _BLANKS.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at


def _comparison(reader: _Reader, fields: Fields) -> Comparison:
    field, key = _field(reader, fields)
    operators = field.holds.operators
    sign = reader.need(_OPERATOR, f"one of {', '.join(operators)}")
    operator = " ".join(sign[0].upper().split())
    if operator not in operators:
        reader.refuse(f"one of {', '.join(operators)}", at=reader.began)
    return Comparison(field.name, operator, _value(reader, field, operator), key)


def _field(reader: _Reader, fields: Fields) -> tuple[Field, str]:
    expected = _expected(fields)
    parts = reader.need(_KEY, expected)
    name, key = _unquoted(parts, "name"), _unquoted(parts, "key")
    if name in _ATTRIBUTE and name not in fields and key:
        name, key = key, ""
    elif f"{name}.{key}" in fields:
        name, key = f"{name}.{key}", ""
    field = fields.get(name)
    if field is None or bool(key) != field.holds.keyed:
        reader.refuse(expected, at=reader.began)
    return field, key


def _expected(fields: Fields) -> str:
    """Return the expected fields, each by its first name."""
    first: dict[Field, str] = {}
    for name, field in fields.items():
        first.setdefault(field, f"{name}.KEY" if field.holds.keyed else name)
    return f"one of {', '.join(first.values())}"


def _value(reader: _Reader, field: Field, operator: str) -> Scalar | tuple[str, ...] | None:
    if operator.endswith("NULL"):
        return None
    exact = "LIKE" not in operator
    if operator.endswith("IN"):
        return _texts(reader, field)
    if field.holds is Holds.TIME:
        return _time(reader)
    return _number(reader) if field.holds in {Holds.NUMBER, Holds.METRICS} else _word(reader, field, exact=exact)


def _texts(reader: _Reader, field: Field) -> tuple[str, ...]:
    reader.need(_OPEN, "a list: ('a', 'b')")
    texts = [_word(reader, field)]
    while reader.take(_COMMA):
        texts.append(_word(reader, field))
    reader.need(_CLOSE, "a comma or ')'")
    return tuple(texts)


def _text(reader: _Reader) -> str:
    token = reader.need(_TEXT, "a text in quotes")
    if token["single"] is not None:
        return token["single"].replace("''", "'")
    return token["double"].replace('""', '"')


def _word(reader: _Reader, field: Field, *, exact: bool = True) -> str:
    """Read a text; of a status in any case, and an existing one unless it is a pattern."""
    text = _text(reader)
    if field.holds is not Holds.STATUS:
        return text
    if exact and text.upper() not in field.choices:
        reader.refuse(f"one of {', '.join(repr(word.lower()) for word in field.choices)}", at=reader.began)
    return text.upper()


def _time(reader: _Reader) -> int | float:
    """Read a time, in milliseconds since 1970 or in RFC 3339, as milliseconds."""
    if not (token := reader.take(_TEXT)):
        return _number(reader)
    nanoseconds = parse_time(token["single"] or token["double"] or "")
    if nanoseconds is None:
        reader.refuse("milliseconds, or a time with its zone such as '2026-11-03T14:00Z'", at=reader.began)
    whole, rest = divmod(nanoseconds, 1_000_000)
    return nanoseconds / 1_000_000 if rest else whole


def _number(reader: _Reader) -> int | float:
    digits = reader.need(_NUMBER, "a number")[0]
    try:
        number = int(digits)
    except ValueError:  # it has a fraction or an exponent, or thousands of digits
        return float(digits)
    return number if -(2**63) <= number < 2**63 else float(digits)


_QUOTES = {"_in_quotes": '"', "_in_ticks": "`", "_in_apostrophes": "'"}


def _unquoted(parts: re.Match[str], group: str) -> str:
    groups = parts.groupdict()
    plain: str | None = groups[group]
    if plain is not None:
        return plain
    for kind, quote in _QUOTES.items():
        quoted: str | None = groups.get(group + kind)
        if quoted is not None:
            return quoted.replace(quote * 2, quote)
    return ""


ANY, ONE = "%", "_"


def translate(pattern: str, literal: Callable[[str], str], *, any_text: str, any_char: str) -> str:
    """Return a pattern translated to another syntax; `literal` writes a character without a special meaning."""
    written: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if char == "\\":
            written.append(literal(next(chars, char)))
        else:
            written.append({ANY: any_text, ONE: any_char}.get(char) or literal(char))
    return "".join(written)
