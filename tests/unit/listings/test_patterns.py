"""What a pattern of names stands for, and that any text is one."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.listings.globs import literal_start, matcher

WILD = st.text(st.sampled_from("*?[]!-^ab\\"), max_size=255)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
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
def test_what_fits(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    found = [name for name in fits + fits_not if matcher(pattern)(name)]
    assert found == fits


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_escaped_name_fits_itself_alone(name: str, other: str) -> None:
    escaped = matcher(glob.escape(name))
    assert escaped(name)
    assert bool(escaped(other)) == (other == name)
    assert not escaped(f"{name}x")


@given(WILD, st.text(st.sampled_from("*?[]!-^ab\\"), max_size=8))
def test_a_name_that_fits_begins_as_the_pattern_does(pattern: str, name: str) -> None:
    assert name.startswith(literal_start(pattern)) or not matcher(pattern)(name)


@given(WILD)
def test_any_text_is_a_pattern_and_quickly_held_against_a_name(pattern: str) -> None:
    name = "a" * 255 + "b"  # a matcher that tries every way would not end within the limit of a test
    assert bool(matcher(pattern)(name)) == fnmatchcase(name, pattern)
