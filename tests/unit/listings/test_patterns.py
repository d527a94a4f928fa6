"""Patterns of names: what matches, and that any text is a pattern."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.listings.globs import literal_start, matcher

WILD = st.text(st.sampled_from("*?[]!-^ab\\"), max_size=255)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["a", "*", "é"], []),
        ("a", ["a"], ["A", "aa", "ba"]),
        ("a*", ["a", "ab", "a*"], ["ba", "A"]),
        ("*-eu", ["-eu", "fraud-eu"], ["fraud-EU", "fraud-eu2"]),
        ("a?", ["ab", "a?", "aé"], ["a", "abc"]),
        ("a[bc]", ["ab", "ac"], ["a", "ad", "aB", "a[bc]"]),
        ("a[b-d]", ["ab", "ac", "ad"], ["ae", "a-"]),
        ("a[!b]", ["ac", "a!"], ["ab", "a"]),
        ("a[*]", ["a*"], ["a", "ab", "a[*]"]),
        ("a[?]", ["a?"], ["ab", "a[?]"]),
        ("a[[]1]", ["a[1]"], ["a1", "a[[]1]"]),
        ("[*]", ["*"], ["a"]),
        ("a[1", ["a[1"], ["a1", "a["]),
        ("a.b", ["a.b"], ["axb"]),
        ("a\\*", ["a\\", "a\\b"], ["a*"]),
        ("", [], ["a", "*"]),
    ],
)
def test_pattern_matches_names(pattern: str, matching: list[str], other: list[str]) -> None:
    matched = [name for name in matching + other if matcher(pattern)(name)]
    assert matched == matching


@given(st.text(min_size=1), st.text(min_size=1))
def test_escaped_name_matches_only_itself(name: str, other: str) -> None:
    escaped = matcher(glob.escape(name))
    assert escaped(name)
    assert bool(escaped(other)) == (other == name)
    assert not escaped(f"{name}x")


@given(WILD, st.text(st.sampled_from("*?[]!-^ab\\"), max_size=8))
def test_matching_name_starts_with_literal_prefix(pattern: str, name: str) -> None:
    assert name.startswith(literal_start(pattern)) or not matcher(pattern)(name)


@given(WILD)
def test_any_text_is_a_pattern_that_matches_quickly(pattern: str) -> None:
    name = "a" * 255 + "b"  # a backtracking matcher would exceed the test's timeout
    assert bool(matcher(pattern)(name)) == fnmatchcase(name, pattern)
