"""Pages: reading all pages returns every row once despite concurrent writes, and a foreign token is rejected."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from services.listings.pages import DEFAULT_SIZE, LARGEST_BYTES, LARGEST_SIZE, cut, enough, key_of, page_size


class ThirdOfPage(str):
    """A row in a response; three of them fill a page."""

    def ByteSize(self) -> int:  # noqa: N802
        return LARGEST_BYTES // 3


class SizedRow(int):
    """A row in a response, of as many bytes as its number."""

    def ByteSize(self) -> int:  # noqa: N802
        return int(self)


def token_of(text: str | bytes) -> str:
    """Return a token with this content."""
    return base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("requested", "expected"),
    [(0, DEFAULT_SIZE), (1, 1), (999, 999), (1000, LARGEST_SIZE), (1001, LARGEST_SIZE), (2**32 - 1, LARGEST_SIZE)],
)
def test_page_size_is_limited(requested: int, expected: int) -> None:
    assert page_size(requested) == expected


@given(st.sets(st.text(max_size=4).filter(lambda text: "\0" not in text), max_size=12), st.integers(1, 5), st.data())
def test_pages_return_every_row_once_despite_writes(names: set[str], size: int, data: st.DataObject) -> None:
    rows = set(names)
    seen: list[str] = []
    token = ""
    while True:
        key = key_of(token, str)
        due = sorted(row for row in rows if key is None or row > str(key[0]))
        page, token = cut(due[: size + 1], size, lambda row: [row], lambda rows: [ThirdOfPage(row) for row in rows])
        assert len(page) == min(size, 3, len(due))
        seen += page
        if not token:
            break
        rows -= data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=1)) - names
        rows |= data.draw(st.sets(st.text(max_size=4).filter(lambda text: "\0" not in text), max_size=1))
    assert seen == sorted(set(seen))
    assert names <= set(seen)


@given(st.lists(st.integers(0, LARGEST_BYTES * 3 // 2), max_size=300), st.integers(1, 250))
def test_page_has_all_rows_that_fit_and_at_least_one(sizes: list[int], size: int) -> None:
    page, token = cut(sizes[: size + 1], size, lambda row: [row], lambda rows: [SizedRow(row) for row in rows])
    assert page == sizes[: len(page)]
    assert len(page) == 1 or sum(page) <= LARGEST_BYTES
    assert (token == "") == (len(page) == len(sizes))
    if len(page) < min(size, len(sizes)):
        assert page
        assert sum(page) + sizes[len(page)] > LARGEST_BYTES


@given(st.lists(st.integers(0, LARGEST_BYTES * 3 // 2), max_size=20))
def test_no_more_rows_are_read_than_page_needs(sizes: list[int]) -> None:
    read = list(enough(sizes, int))
    assert read == sizes[: len(read)]
    whole = cut(sizes, max(len(sizes), 1), lambda row: [row], lambda rows: [SizedRow(row) for row in rows])
    assert cut(read, max(len(sizes), 1), lambda row: [row], lambda rows: [SizedRow(row) for row in rows]) == whole
    assert len(read) <= len(whole[0]) + 1


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text().filter(lambda text: "\0" not in text))))
def test_token_returns_its_key(key: list[int | str]) -> None:
    _, token = cut([0, 1], 1, lambda _: key, lambda rows: [SizedRow(row) for row in rows])
    assert key_of(token, *(type(part) for part in key)) == tuple(key)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("%%%", id="not base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param("a", id="incomplete byte"),
        pytest.param(token_of("{"), id="not JSON"),
        pytest.param(token_of(b"\xff\xfe["), id="not UTF-8"),
        pytest.param(token_of("{}"), id="not a list"),
        pytest.param(token_of("[]"), id="empty list"),
        pytest.param(token_of('["1"]'), id="text"),
        pytest.param(token_of("[1.0]"), id="fraction"),
        pytest.param(token_of("[true]"), id="boolean"),
        pytest.param(token_of("[1, 2]"), id="too many values"),
        pytest.param(token_of("[null]"), id="null"),
        pytest.param(token_of(json.dumps([2**63])), id="more than 64 bits"),
        pytest.param(token_of(json.dumps([-(2**63) - 1])), id="less than 64 bits"),
        pytest.param(token_of("[" + "9" * 5000 + "]"), id="thousands of digits"),
        pytest.param(token_of("[" * 100_000), id="deep nesting"),
    ],
)
def test_foreign_token_is_rejected(token: str) -> None:
    with pytest.raises(Rejected) as refused:
        key_of(token, int)
    assert refused.value.reason == "INVALID_PAGE"


@pytest.mark.parametrize("char", ["\\u0000", "\\ud800", "\\udfff"])
def test_text_that_database_cannot_store_is_rejected(char: str) -> None:
    with pytest.raises(Rejected) as refused:
        key_of(token_of(f'["a{char}"]'), str)
    assert refused.value.reason == "INVALID_PAGE"
    assert key_of(token_of('["\\ud83d\\ude00"]'), str) == ("😀",)


@given(st.text())
def test_any_text_is_accepted_or_rejected_as_token(token: str) -> None:
    outcome: object = ""
    try:
        outcome = key_of(token, int)
    except Rejected as error:
        outcome = error.reason
    assert outcome in {None, "INVALID_PAGE"} or isinstance(outcome, tuple)
