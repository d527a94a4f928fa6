"""Filters and orders: how text is parsed, and how a syntax error is located."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from services.listings.filter_grammar import (
    MAX_CHARACTERS,
    MAX_COMPARISONS,
    MAX_ORDERS,
    Comparison,
    Field,
    Holds,
    Order,
    parse_filter,
    parse_order,
    translate,
)

FIELDS = {
    "name": Field("name", Holds.TEXT),
    "created": Field("created", Holds.NUMBER),
    "creation_timestamp": Field("created", Holds.NUMBER),
    "tags": Field("tags", Holds.TAGS),
    "tag": Field("tags", Holds.TAGS),
    "metrics": Field("metrics", Holds.METRICS),
    "data.name": Field("data", Holds.TEXT),
    "id": Field("id", Holds.ID),
}
ALL_FIELDS = "one of name, created, tags.KEY, metrics.KEY, data.name, id"

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
KEYS = TEXTS.filter(bool)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))

NAMED_X = Comparison("name", "ILIKE", "X%")
TAGGED_AND = Comparison("tags", "IS NOT NULL", None, "AND")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("name = 'x'", [Comparison("name", "=", "x")]),
        ("name='x'", [Comparison("name", "=", "x")]),
        ('name != "x"', [Comparison("name", "!=", "x")]),
        ("`name` = ''", [Comparison("name", "=", "")]),
        ("\"name\" = 'it''s'", [Comparison("name", "=", "it's")]),
        ('name = "say ""so"""', [Comparison("name", "=", 'say "so"')]),
        ("attribute.name like 'x%'", [Comparison("name", "LIKE", "x%")]),
        ("name ilike 'X%' AnD created<=-1.5e3", [NAMED_X, Comparison("created", "<=", -1500.0)]),
        ("name IN ('a',\"b\" , 'a')", [Comparison("name", "IN", ("a", "b", "a"))]),
        ("name not  in ('a')", [Comparison("name", "NOT IN", ("a",))]),
        ("creation_timestamp > 1", [Comparison("created", ">", 1)]),
        ("created = 9223372036854775807", [Comparison("created", "=", 2**63 - 1)]),
        ("created = 9223372036854775808", [Comparison("created", "=", 2.0**63)]),
        ("created < .5", [Comparison("created", "<", 0.5)]),
        ("created < " + "9" * 5000, [Comparison("created", "<", float("inf"))]),
        ("tags.team = 'risk'", [Comparison("tags", "=", "risk", "team")]),
        ("tag.a.b-c = 'x'", [Comparison("tags", "=", "x", "a.b-c")]),
        ("tags.\"the team\" = 'x'", [Comparison("tags", "=", "x", "the team")]),
        ("tags.`a``b` = 'x'", [Comparison("tags", "=", "x", "a`b")]),
        ("tags.'it''s' = 'x'", [Comparison("tags", "=", "x", "it's")]),
        ("tag.a/b-c = 'x'", [Comparison("tags", "=", "x", "a/b-c")]),
        ("metrics.`val acc` >= 0.5", [Comparison("metrics", ">=", 0.5, "val acc")]),
        ("metrics.a.b<-2", [Comparison("metrics", "<", -2, "a.b")]),
        ("data.name = 'x'", [Comparison("data", "=", "x")]),
        ("`data`.\"name\" LIKE 'x'", [Comparison("data", "LIKE", "x")]),
        ("run.id NOT IN ('1')", [Comparison("id", "NOT IN", ("1",))]),
        ("attr.`name` = 'x'", [Comparison("name", "=", "x")]),
        ("tags.größe IS NULL", [Comparison("tags", "IS NULL", None, "größe")]),
        ("tags.AND IS NOT NULL AND tags.x='AND'", [TAGGED_AND, Comparison("tags", "=", "AND", "x")]),
    ],
)  # fmt: skip
def test_filter_is_parsed(text: str, expected: list[Comparison]) -> None:
    assert list(parse_filter(text, FIELDS)) == expected


def text_of(comparison: Comparison) -> str:
    """Return a comparison as filter text."""
    quoted = comparison.key.replace('"', '""')
    left = f'{comparison.field}."{quoted}"' if comparison.key else comparison.field
    match comparison.value:
        case None:
            return f"{left} {comparison.operator}"
        case tuple():
            return f"{left} {comparison.operator} ({', '.join(map(in_quotes, comparison.value))})"
        case str():
            return f"{left} {comparison.operator} {in_quotes(comparison.value)}"
        case number:
            return f"{left} {comparison.operator} {number!r}"


def in_quotes(text: str) -> str:
    """Return a text in quotes."""
    return "'" + text.replace("'", "''") + "'"


def comparisons() -> st.SearchStrategy[Comparison]:
    """Draw any comparison."""

    def values(operator: str) -> st.SearchStrategy[object]:
        if operator.endswith("IN"):
            return st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
        return st.none() if operator.endswith("NULL") else TEXTS

    def of(field: str, operators: tuple[str, ...], keys: st.SearchStrategy[str]) -> st.SearchStrategy[Comparison]:
        return st.sampled_from(operators).flatmap(
            lambda operator: st.builds(Comparison, st.just(field), st.just(operator), values(operator), keys)
        )

    texts, tags = of("name", Holds.TEXT.operators, st.just("")), of("tags", Holds.TAGS.operators, KEYS)
    numbers = st.builds(Comparison, st.just("created"), st.sampled_from(Holds.NUMBER.operators), NUMBERS)
    return st.one_of(texts, tags, numbers)


@given(st.lists(comparisons(), max_size=4))
def test_written_comparisons_are_parsed_unchanged(many: list[Comparison]) -> None:
    assert list(parse_filter(" AND ".join(map(text_of, many)), FIELDS)) == many


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("name", 5, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
        ("name ~ 'x'", 6, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
        ("name > 'x'", 6, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
        ("name LIKELY 'x'", 6, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
        ("created LIKE '1'", 9, "one of =, !=, <, <=, >, >="),
        ("nam = 'x'", 1, ALL_FIELDS),
        ("name.x = 'x'", 1, ALL_FIELDS),
        ("tags = 'x'", 1, ALL_FIELDS),
        ("= 'x'", 1, ALL_FIELDS),
        ("'name' = 'x'", 1, ALL_FIELDS),
        ("metrics = 1", 1, ALL_FIELDS),
        ("data = 'x'", 1, ALL_FIELDS),
        ("data.digest = 'x'", 1, ALL_FIELDS),
        ("metrics.a LIKE 'x'", 11, "one of =, !=, <, <=, >, >="),
        ("metrics.a = '1'", 13, "a number"),
        ("id LIKE 'x'", 4, "one of =, !=, IN, NOT IN"),
        ("id = 1", 6, "a text in quotes"),
        ("name = x", 8, "a text in quotes"),
        ("name = 'x", 8, "a text in quotes"),
        ("name = 1", 8, "a text in quotes"),
        ("created = '1'", 11, "a number"),
        ("created = 1x", 11, "a number"),
        ("created = NaN", 11, "a number"),
        ("name IN 'x'", 9, "a list: ('a', 'b')"),
        ("name IN ()", 10, "a text in quotes"),
        ("name IN ('a' 'b')", 14, "a comma or ')'"),
        ("name IN ('a',)", 14, "a text in quotes"),
        ("name = 'x' OR name = 'y'", 12, "AND"),
        ("name = 'x' name = 'y'", 12, "AND"),
        ("name = 'x' ANDname = 'y'", 12, "AND"),
        ("name = 'x' AND", 15, ALL_FIELDS),
        ("(name = 'x')", 1, ALL_FIELDS),
        ("name = 'a\0'", 10, "no NUL"),
        ("x" * (MAX_CHARACTERS + 1), MAX_CHARACTERS + 1, f"at most {MAX_CHARACTERS} characters"),
    ],
)
def test_syntax_error_has_place_and_expectation(text: str, place: int, expected: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_filter(text, FIELDS)
    assert refused.value.reason == "INVALID_FILTER"
    assert (refused.value.metadata["place"], refused.value.metadata["expected"]) == (str(place), expected)


def test_number_of_comparisons_is_limited() -> None:
    largest = " AND ".join(["name = 'x'"] * MAX_COMPARISONS)
    assert len(parse_filter(largest, FIELDS)) == MAX_COMPARISONS
    with pytest.raises(Rejected) as refused:
        parse_filter(f"{largest} AND name = 'x'", FIELDS)
    assert refused.value.reason == "INVALID_FILTER"


def test_number_of_order_fields_is_limited() -> None:
    largest = ", ".join(f"metrics.m{number}" for number in range(MAX_ORDERS))
    assert len(parse_order(largest, FIELDS)) == MAX_ORDERS
    with pytest.raises(Rejected) as refused:
        parse_order(f"{largest}, name", FIELDS)
    assert refused.value.reason == "INVALID_ORDER"


@given(st.one_of(st.text(), st.text("nametgscrd.='\"`() ANDIL%1,<>!")))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    for parse, reason in ((parse_filter, "INVALID_FILTER"), (parse_order, "INVALID_ORDER")):
        try:
            assert isinstance(parse(text, FIELDS), tuple)
        except Rejected as refused:
            assert refused.reason == reason  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("name", [Order("name")]),
        ("name ASC", [Order("name")]),
        ("creation_timestamp desc", [Order("created", descending=True)]),
        ("`created` DESC,name", [Order("created", descending=True), Order("name")]),
        ("tags.a, metrics.a DESC", [Order("tags", key="a"), Order("metrics", descending=True, key="a")]),
        ("tags.a,tag.`b c` asc", [Order("tags", key="a"), Order("tags", key="b c")]),
    ],
)
def test_order_is_parsed(text: str, expected: list[Order]) -> None:
    assert list(parse_order(text, FIELDS)) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nam", 1),
        ("name UP", 6),
        ("name name", 6),
        ("name,", 6),
        (",name", 1),
        ("name, name DESC", 7),
        ("tags", 1),
        ("tags.x, tag.`x` DESC", 9),
    ],
)
def test_invalid_order_has_place(text: str, place: int) -> None:
    with pytest.raises(Rejected) as refused:
        parse_order(text, FIELDS)
    assert refused.value.reason == "INVALID_ORDER"
    assert refused.value.metadata["place"] == str(place)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("a%b_", "<a>*<b>?"), (r"\%\_\\", r"<%><_><\>"), ("\\", "<\\>"), (r"\a", "<a>"), ("", "")],
)
def test_pattern_is_translated(pattern: str, expected: str) -> None:
    assert translate(pattern, lambda char: f"<{char}>", any_text="*", any_char="?") == expected


STATUS_AND_TIME = {
    "status": Field("status", Holds.STATUS, ("READY", "FAILED")),
    **dict.fromkeys(("created", "created_at"), Field("created", Holds.TIME)),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("status = 'ready'", "READY"),
        ("status != 'Ready'", "READY"),
        ("status IN ('ready', 'FAILED')", ("READY", "FAILED")),
        ("status LIKE 'rea%'", "REA%"),
        ("status ILIKE 'x%'", "X%"),
    ],
)
def test_status_is_case_insensitive(text: str, value: object) -> None:
    assert parse_filter(text, STATUS_AND_TIME)[0].value == value


@pytest.mark.parametrize("text", ["status = 'readdy'", "status IN ('ready', 'gone')", "status NOT IN ('')"])
def test_unknown_status_is_rejected(text: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_filter(text, STATUS_AND_TIME)
    assert refusal.value.reason == "INVALID_FILTER"
    assert refusal.value.metadata["expected"] == "one of 'ready', 'failed'"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("created > 1700000000000", 1_700_000_000_000),
        ("created > 1.5", 1.5),
        ("created >= '2023-11-14T22:13:20Z'", 1_700_000_000_000),
        ("created_at < '2023-11-14T23:13+01:00'", 1_699_999_980_000),
        ('created = "2023-11-14 22:13:20.0005z"', 1_700_000_000_000.5),
        ("created = '1969-12-31T23:59:59.999Z'", -1),
    ],
)
def test_time_is_milliseconds_or_rfc_3339(text: str, value: float) -> None:
    assert parse_filter(text, STATUS_AND_TIME)[0].value == value


@pytest.mark.parametrize(
    "text", ["'2023-11-14'", "'2023-11-14T22:13:20'", "'yesterday'", "'1700000000000'", "'2023-02-30T00:00Z'", "''"]
)
def test_invalid_time_is_rejected_with_place(text: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_filter(f"created > {text}", STATUS_AND_TIME)
    assert (refusal.value.reason, refusal.value.metadata["place"]) == ("INVALID_FILTER", "11")
