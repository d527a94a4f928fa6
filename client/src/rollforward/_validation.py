"""Validation of what a run logs, at the logging call and not later in the background."""

import math
import operator
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, SupportsFloat, SupportsIndex, TypeAlias

from rollforward.errors import InvalidRequest

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
KEY_CHARACTERS: Final = 250
PARAM_CHARACTERS: Final = 6_000
TAG_CHARACTERS: Final = 8_000
NAME_CHARACTERS: Final = 500
DESCRIPTION_CHARACTERS: Final = 20_000
INPUT_TAG_CHARACTERS: Final = 500

StepLike: TypeAlias = SupportsIndex | SupportsFloat | None
"""A whole number of any library, including 5.0; None means 0."""

_MODEL_ID: Final = re.compile(r"m-[0-9a-f]{32}")
_RUN_KEY: Final = re.compile(r"[/\w.\- :]+")


def checked_key(key: str) -> str:
    """Return the name of a label: 1 to 250 printable characters in normal form C, without blanks at its ends.

    Raises:
        InvalidRequest: INVALID_KEY.
    """
    if not (isinstance(key, str) and 1 <= len(key) <= KEY_CHARACTERS and key.isprintable() and key == key.strip()):
        expected = f"1 to {KEY_CHARACTERS} printable characters, without blanks at its ends"
        message = f"invalid key {repr(key)[:80]}: expected {expected}"
        raise InvalidRequest("INVALID_KEY", message)
    if not unicodedata.is_normalized("NFC", key):
        message = f"invalid key {key!r}: expected Unicode normal form C (NFC)"
        raise InvalidRequest("INVALID_KEY", message, {"key": key})
    return key


def checked_run_key(key: str) -> str:
    """Return the name of a run's parameter, tag or metric: 1 to 250 letters, digits and "_-. :/", as a path.

    Raises:
        InvalidRequest: INVALID_KEY.
    """
    if not (isinstance(key, str) and len(key) <= KEY_CHARACTERS and _RUN_KEY.fullmatch(key)):
        message = f'invalid key {repr(key)[:80]}: expected 1 to {KEY_CHARACTERS} letters, digits and "_-. :/"'
        raise InvalidRequest("INVALID_KEY", message)
    if posixpath.normpath(key) != key or key.startswith(("..", "/")) or key == ".":
        message = f"invalid key {key!r}: expected a relative path without empty names, '.' and '..'"
        raise InvalidRequest("INVALID_KEY", message, {"key": key})
    return key


def checked_name(name: str, field: str) -> str:
    """Return a name: 1 to 500 printable characters in normal form C, without blanks at its ends.

    Raises:
        InvalidRequest: INVALID_NAME.
    """
    if not (
        isinstance(name, str) and 1 <= len(name) <= NAME_CHARACTERS and name.isprintable() and name == name.strip()
    ):
        message = (
            f"invalid {field} {repr(name)[:80]}: expected 1 to {NAME_CHARACTERS} printable characters, "
            "without blanks at its ends"
        )
        raise InvalidRequest("INVALID_NAME", message)
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidRequest("INVALID_NAME", f"invalid {field} {name!r}: expected Unicode normal form C (NFC)")
    return name


def is_prose(text: str) -> bool:
    """Return whether a text, of any number of lines, has no control characters except tabs and line ends."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\r\t" for character in text)


def checked_description(text: str) -> str:
    """Return a description: at most 20,000 characters, on any number of lines.

    Raises:
        InvalidRequest: INVALID_DESCRIPTION.
    """
    if len(text) > DESCRIPTION_CHARACTERS:
        message = f"description too long: {len(text)} characters, expected at most {DESCRIPTION_CHARACTERS}"
        raise InvalidRequest("INVALID_DESCRIPTION", message)
    if not is_prose(text):
        message = "invalid description: expected no control characters except tabs and line ends"
        raise InvalidRequest("INVALID_DESCRIPTION", message)
    return text


def checked_model_id(model_id: str) -> str:
    """Return a logged model's id: "m-" and 32 hex digits.

    Raises:
        InvalidRequest: INVALID_MODEL_ID.
    """
    if not _MODEL_ID.fullmatch(model_id):
        raise InvalidRequest(
            "INVALID_MODEL_ID", f"invalid logged model id {model_id[:80]!r}: expected 'm-' and 32 hex digits"
        )
    return model_id


def checked_value(key: str, value: SupportsFloat) -> float:
    """Return a metric's value as a float.

    Accepts any real number: NaN and infinities, booleans, numbers of other libraries, arrays and tensors of one number.

    Raises:
        InvalidRequest: INVALID_VALUE.
    """
    if type(value) is float:
        return value
    try:
        number = _scalar(value)
        if not isinstance(number, str | bytes | bytearray):
            return float(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_a_number(key, value) from error
    raise _not_a_number(key, value)


def checked_step(step: StepLike, name: str = "step") -> int:
    """Return a step as a 64-bit integer: 5.0 is 5, None is 0.

    Raises:
        InvalidRequest: INVALID_STEP.
    """
    if type(step) is int and -INT64_MAX <= step <= INT64_MAX:
        return step
    number = 0 if step is None else _whole(step)
    if number is None or not -INT64_MAX - 1 <= number <= INT64_MAX:
        message = f"invalid {name} {repr(step)[:80]}: expected a 64-bit integer"
        raise InvalidRequest("INVALID_STEP", message, {"field": name})
    return number


def checked_timestamp(timestamp: SupportsIndex | SupportsFloat) -> int:
    """Return a time in whole milliseconds; the fraction is dropped.

    Raises:
        InvalidRequest: INVALID_STEP.
    """
    if isinstance(timestamp, float) and math.isfinite(timestamp):
        timestamp = math.floor(timestamp)
    return checked_step(timestamp, "timestamp")


def _whole(value: Any) -> int | None:
    """Return a value as an int if it is a whole number, else None."""
    try:
        number = _scalar(value)
        if isinstance(value, bool) or isinstance(number, bool | str | bytes | bytearray):
            return None
        if hasattr(number, "__index__"):
            return operator.index(number)
        return int(number) if int(number) == number else None
    except (TypeError, ValueError, OverflowError):
        return None


def _scalar(value: Any) -> Any:
    # The item() of arrays and tensors of one number works even where float() warns or fails.
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def checked_params(params: Mapping[str, object]) -> dict[str, str]:
    """Return parameters as texts of at most 6,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_run_key(key): _checked_text(key, str(value), PARAM_CHARACTERS) for key, value in params.items()}


def checked_run_tags(tags: Mapping[str, object] | None) -> dict[str, str]:
    """Return tags of a run, an experiment or a logged model as texts of at most 8,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_run_key(key): _checked_text(key, str(value), TAG_CHARACTERS) for key, value in (tags or {}).items()}


def checked_input_tags(context: str, tags: Mapping[str, object] | None) -> dict[str, str]:
    """Return tags of a run's input dataset, including "context", as texts of at most 500 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    labels = {**({"context": context} if context else {}), **(tags or {})}
    return {checked_run_key(key): _checked_text(key, str(value), INPUT_TAG_CHARACTERS) for key, value in labels.items()}


def checked_tags(tags: Mapping[str, object] | None) -> dict[str, str]:
    """Return tags of a model or a version as texts of at most 8,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_key(key): _checked_text(key, str(value), TAG_CHARACTERS) for key, value in (tags or {}).items()}


def _checked_text(key: str, text: str, max_characters: int) -> str:
    if len(text) > max_characters or "\0" in text or not _is_unicode(text):
        expected = f"at most {max_characters} characters of Unicode text without NUL"
        message = f"invalid value of {key!r}, {len(text)} characters long: expected {expected}"
        raise InvalidRequest("INVALID_VALUE", message, {"key": key})
    return text


def _not_a_number(key: str, value: object) -> InvalidRequest:
    message = f"invalid value of metric {key!r}: expected a number, got {repr(value)[:80]} ({type(value).__name__})"
    return InvalidRequest("INVALID_VALUE", message, {"key": key})


def _is_unicode(text: str) -> bool:
    # A lone surrogate, as os.fsdecode leaves it, cannot be encoded as UTF-8.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
