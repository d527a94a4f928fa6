"""Pages: walking them gives every row once, whatever is written meanwhile, and a foreign token is refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from services.listings.pages import DEFAULT_SIZE, LARGEST_BYTES, LARGEST_SIZE, cut, enough, key_of, page_size


class Large(str):
    """A row as it is answered, three of which fill a page."""

    def ByteSize(self) -> int:  # noqa: N802
        return LARGEST_BYTES // 3


class Wide(int):
    """A row as it is answered, as many bytes as its number says."""

    def ByteSize(self) -> int:  # noqa: N802
        return int(self)


def token_of(text: str | bytes) -> str:
    """A token that holds a text."""
    return base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("asked", "given_size"),
    [(0, DEFAULT_SIZE), (1, 1), (999, 999), (1000, LARGEST_SIZE), (1001, LARGEST_SIZE), (2**32 - 1, LARGEST_SIZE)],
)
def test_sizes(asked: int, given_size: int) -> None:
    assert page_size(asked) == given_size


@given(st.sets(st.text(max_size=4).filter(lambda text: "\0" not in text), max_size=12), st.integers(1, 5), st.data())
def test_a_walk_meets_every_row_once_while_others_come_and_go(names: set[str], size: int, data: st.DataObject) -> None:
    rows = set(names)
    seen: list[str] = []
    token = ""
    while True:
        key = key_of(token, str)
        due = sorted(row for row in rows if key is None or row > str(key[0]))
        page, token = cut(due[: size + 1], size, lambda row: [row], lambda rows: [Large(row) for row in rows])
        assert len(page) == min(size, 3, len(due))
        seen += page
        if not token:
            break
        rows -= data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=1)) - names
        rows |= data.draw(st.sets(st.text(max_size=4).filter(lambda text: "\0" not in text), max_size=1))
    assert seen == sorted(set(seen))
    assert names <= set(seen)


@given(st.lists(st.integers(0, LARGEST_BYTES * 3 // 2), max_size=300), st.integers(1, 250))
def test_a_page_has_all_that_fits_and_at_least_one_row(sizes: list[int], size: int) -> None:
    page, token = cut(sizes[: size + 1], size, lambda row: [row], lambda rows: [Wide(row) for row in rows])
    assert page == sizes[: len(page)]
    assert len(page) == 1 or sum(page) <= LARGEST_BYTES
    assert (token == "") == (len(page) == len(sizes))
    if len(page) < min(size, len(sizes)):
        assert page
        assert sum(page) + sizes[len(page)] > LARGEST_BYTES


@given(st.lists(st.integers(0, LARGEST_BYTES * 3 // 2), max_size=20))
def test_rows_are_read_until_it_is_known_where_a_page_ends(sizes: list[int]) -> None:
    read = list(enough(sizes, int))
    assert read == sizes[: len(read)]
    whole = cut(sizes, max(len(sizes), 1), lambda row: [row], lambda rows: [Wide(row) for row in rows])
    assert cut(read, max(len(sizes), 1), lambda row: [row], lambda rows: [Wide(row) for row in rows]) == whole
    assert len(read) <= len(whole[0]) + 1


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text().filter(lambda text: "\0" not in text))))
def test_a_token_gives_its_key_back(key: list[int | str]) -> None:
    _, token = cut([0, 1], 1, lambda _: key, lambda rows: [Wide(row) for row in rows])
    assert key_of(token, *(type(part) for part in key)) == tuple(key)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("%%%", id="no base64"),
        pytest.param("é", id="no ASCII"),
        pytest.param("a", id="half a byte"),
        pytest.param(token_of("{"), id="no JSON"),
        pytest.param(token_of(b"\xff\xfe["), id="no UTF-8"),
        pytest.param(token_of("{}"), id="no list"),
        pytest.param(token_of("[]"), id="nothing"),
        pytest.param(token_of('["1"]'), id="a text"),
        pytest.param(token_of("[1.0]"), id="a fraction"),
        pytest.param(token_of("[true]"), id="a truth value"),
        pytest.param(token_of("[1, 2]"), id="too many"),
        pytest.param(token_of("[null]"), id="null"),
        pytest.param(token_of(json.dumps([2**63])), id="more than 64 bits"),
        pytest.param(token_of(json.dumps([-(2**63) - 1])), id="less than 64 bits"),
        pytest.param(token_of("[" + "9" * 5000 + "]"), id="thousands of digits"),
        pytest.param(token_of("[" * 100_000), id="a deep nest"),
    ],
)
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(Rejected) as refused:
        key_of(token, int)
    assert refused.value.reason == "INVALID_PAGE"


@pytest.mark.parametrize("char", ["\\u0000", "\\ud800", "\\udfff"])
def test_a_text_that_a_database_cannot_hold_is_refused(char: str) -> None:
    with pytest.raises(Rejected) as refused:
        key_of(token_of(f'["a{char}"]'), str)
    assert refused.value.reason == "INVALID_PAGE"
    assert key_of(token_of('["\\ud83d\\ude00"]'), str) == ("😀",)


@given(st.text())
def test_any_text_is_a_token_or_refused_as_one(token: str) -> None:
    outcome: object = ""
    try:
        outcome = key_of(token, int)
    except Rejected as error:
        outcome = error.reason
    assert outcome in {None, "INVALID_PAGE"} or isinstance(outcome, tuple)
