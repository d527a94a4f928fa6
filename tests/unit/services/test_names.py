"""Rules for names, and that a valid name is safe wherever it is used."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from eventstore.jetstream import subject_of
from services.validation import (
    check_alias,
    check_digest,
    check_id,
    check_key,
    check_logged_model_id,
    check_model_name,
    check_prose,
)

ODD = st.text(st.sampled_from("abV019 -_/:@.*>%\0\n\u00e9\u0301\u200d\U0001f600"), max_size=8)


def refusal(check: Callable[[str], None], value: str) -> str:
    """Return the reason why a value is rejected, or an empty text."""
    try:
        check(value)
    except Rejected as error:
        return error.reason if error.kind is Kind.INVALID else error.kind.name
    return ""


def check_run_id(value: str) -> None:
    """Check a run's id."""
    check_id(value, "INVALID_RUN_ID")


def check_metric(key: str) -> None:
    """Check a metric's name."""
    check_key(key, "a metric's name")


def check_reason(value: str) -> None:
    """Check a reason."""
    check_prose(value, "the reason", 40, "INVALID_REASON")


@pytest.mark.parametrize("name", ["fraud", "a", "x" * 255, "Zoë", "模型", "a.b*c>d", "with blank", "..", "latest"])
def test_valid_model_name_is_accepted(name: str) -> None:
    assert refusal(check_model_name, name) == ""


@pytest.mark.parametrize(
    "name", ["", "x" * 256, " a", "a ", "a/b", "a:b", "a@b", "a\nb", "a\0", "e\u0301", "\u2028", "\u00a0a"]
)
def test_invalid_model_name_is_rejected(name: str) -> None:
    assert refusal(check_model_name, name) == "INVALID_NAME"


@given(st.one_of(ODD, st.text(max_size=260)))
def test_valid_model_name_is_safe_in_references_paths_and_subjects(name: str) -> None:
    good = (
        1 <= len(name) <= 255
        and name == name.strip()
        and name.isprintable()
        and not set(name) & set("/:@")
        and unicodedata.normalize("NFC", name) == name
    )
    assert refusal(check_model_name, name) == ("" if good else "INVALID_NAME")
    if good:
        subject = subject_of("registry", f"model/{name}")
        assert re.fullmatch(r"rf\.registry\.model\.[A-Za-z0-9_~%-]+", subject), subject
        assert len(subject) < 3_800


@pytest.mark.parametrize("alias", ["champion", "a", "A-b_9", "latest1", "1a", "v", "v1a", "vv1", "x" * 255, "-", "_"])
def test_valid_alias_is_accepted(alias: str) -> None:
    assert refusal(check_alias, alias) == ""


@pytest.mark.parametrize(
    "alias", ["", "x" * 256, "v1", "V1", "v007", "12", "0", "latest", "Latest", "LATEST", "a b", "a\n", "é", "a.b"]
)
def test_invalid_alias_is_rejected(alias: str) -> None:
    assert refusal(check_alias, alias) == "INVALID_ALIAS"


@given(st.one_of(ODD, st.text("lLaAtTeEsSvV019_-", max_size=7)))
def test_valid_alias_does_not_read_like_version(alias: str) -> None:
    word = re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias) is not None
    number = alias.lower().removeprefix("v")
    like_a_version = (number != "" and set(number) <= set("0123456789")) or alias.lower() == "latest"
    assert refusal(check_alias, alias) == ("" if word and not like_a_version else "INVALID_ALIAS")


@given(st.one_of(ODD, st.text("0123456789abcdefABCDEF:sh", max_size=72), st.from_regex(r"\Asha256:[0-9a-f]{64}\Z")))
def test_digest_has_one_spelling(value: str) -> None:
    head, _, digits = value.partition(":")
    good = head == "sha256" and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
    assert refusal(check_digest, value) == ("" if good else "INVALID_DIGEST")


@given(st.one_of(ODD, st.text("0123456789abcdefA", min_size=31, max_size=33)))
def test_id_is_32_lowercase_hex_digits(value: str) -> None:
    good = len(value) == 32 and set(value) <= set("0123456789abcdef")
    assert refusal(check_run_id, value) == ("" if good else "INVALID_RUN_ID")


@given(st.text(max_size=50))
def test_prose_is_any_text_without_control_characters(value: str) -> None:
    control = {char for char in value if unicodedata.category(char) == "Cc"} - set("\t\r\n")
    assert refusal(check_reason, value) == ("INVALID_REASON" if control or len(value) > 40 else "")


@pytest.mark.parametrize(
    "key", ["a", "loss", "eval/f1 macro", "a:b", "x" * 250, " ", "a.b-c_d", "Größe", "模型", "a..b", ".a"]
)
def test_valid_key_is_accepted(key: str) -> None:
    assert refusal(check_metric, key) == ""


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x" * 251,
        "a,b",
        "a\n",
        "a\0",
        ".",
        "..",
        "../a",
        "..a",
        "/a",
        "//a",
        "a/",
        "a//b",
        "a/./b",
        "a/../b",
        "./a",
        "e\u0301",
    ],
)
def test_invalid_key_is_rejected(key: str) -> None:
    assert refusal(check_metric, key) == "INVALID_KEY"


@given(st.text("a./: ,\n", max_size=8))
def test_key_is_normalized_path(key: str) -> None:
    parts = key.split("/")
    good = "" not in parts and "." not in parts and not key.startswith("..") and ".." not in parts
    assert refusal(check_metric, key) == ("" if good and not set(key) & set(",\n") else "INVALID_KEY")


@pytest.mark.parametrize("value", ["", "m-", "a" * 32, "m-" + "A" * 32, "m-" + "a" * 31, "m-" + "a" * 32 + "\n"])
def test_logged_model_id_has_one_spelling(value: str) -> None:
    assert refusal(check_logged_model_id, "m-" + "a" * 32) == ""
    assert refusal(check_logged_model_id, value) == "INVALID_MODEL_ID"
