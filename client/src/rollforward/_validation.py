"""What a run may log, checked at the call that logs it and not later in the background."""

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
"""A whole number of any library, 5.0 too; None is 0."""

_MODEL_ID: Final = re.compile(r"m-[0-9a-f]{32}")
_RUN_KEY: Final = re.compile(r"[/\w.\- :]+")


def checked_key(key: str) -> str:
    """Return the name of a label: 1 to 250 printable characters in normal form C, no blanks at its ends.

    Raises:
        InvalidRequest: INVALID_KEY.
    """
    if not (isinstance(key, str) and 1 <= len(key) <= KEY_CHARACTERS and key.isprintable() and key == key.strip()):
        message = f"a key has 1 to {KEY_CHARACTERS} printable characters, no blanks at its ends: not {repr(key)[:80]}"
        raise InvalidRequest("INVALID_KEY", message)
    if not unicodedata.is_normalized("NFC", key):
        raise InvalidRequest("INVALID_KEY", f"a key is in Unicode normal form C, {key!r} is not", {"key": key})
    return key


def checked_run_key(key: str) -> str:
    """Return a name of a parameter, tag or metric of a run: 1 to 250 letters, digits and "_-. :/", as a path.

    Raises:
        InvalidRequest: INVALID_KEY.
    """
    if not (isinstance(key, str) and len(key) <= KEY_CHARACTERS and _RUN_KEY.fullmatch(key)):
        message = f'a key has 1 to {KEY_CHARACTERS} letters, digits and "_-. :/": not {repr(key)[:80]}'
        raise InvalidRequest("INVALID_KEY", message)
    if posixpath.normpath(key) != key or key.startswith(("..", "/")) or key == ".":
        raise InvalidRequest("INVALID_KEY", f"a key is no path that leads elsewhere, {key!r} does", {"key": key})
    return key


def checked_name(name: str, what: str) -> str:
    """Return a name: 1 to 500 printable characters in normal form C, no blanks at its ends.

    Raises:
        InvalidRequest: INVALID_NAME.
    """
    if not (
        isinstance(name, str) and 1 <= len(name) <= NAME_CHARACTERS and name.isprintable() and name == name.strip()
    ):
        message = (
            f"{what} has 1 to {NAME_CHARACTERS} printable characters, no blanks at its ends: not {repr(name)[:80]}"
        )
        raise InvalidRequest("INVALID_NAME", message)
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidRequest("INVALID_NAME", f"{what} is in Unicode normal form C, {name!r} is not")
    return name


def is_prose(text: str) -> bool:
    """Whether a text, of any lines, has no control characters but tabs and line ends."""
    return not any(unicodedata.category(one) in {"Cc", "Cs"} and one not in "\n\r\t" for one in text)


def checked_description(text: str) -> str:
    """Return a description of at most 20,000 characters, of any lines.

    Raises:
        InvalidRequest: INVALID_DESCRIPTION.
    """
    if len(text) > DESCRIPTION_CHARACTERS:
        message = f"a description has at most {DESCRIPTION_CHARACTERS} characters, this one has {len(text)}"
        raise InvalidRequest("INVALID_DESCRIPTION", message)
    if not is_prose(text):
        raise InvalidRequest("INVALID_DESCRIPTION", "a description has no control characters but tabs and line ends")
    return text


def checked_model_id(model_id: str) -> str:
    """Return a logged model's id: "m-" and 32 hex digits.

    Raises:
        InvalidRequest: INVALID_MODEL_ID.
    """
    if not _MODEL_ID.fullmatch(model_id):
        raise InvalidRequest(
            "INVALID_MODEL_ID", f'a logged model\'s id is "m-" and 32 hex digits, not {model_id[:80]!r}'
        )
    return model_id


def checked_value(key: str, value: SupportsFloat) -> float:
    """Return a metric's value as a float.

    Any real number is one: NaN and infinities, booleans, numbers of other libraries, arrays and tensors of one number.

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
    """Return a step as a whole number of 64 bits: 5.0 is 5, None is 0.

    Raises:
        InvalidRequest: INVALID_STEP.
    """
    if type(step) is int and -INT64_MAX <= step <= INT64_MAX:
        return step
    number = 0 if step is None else _whole(step)
    if number is None or not -INT64_MAX - 1 <= number <= INT64_MAX:
        message = f"invalid {name} {repr(step)[:80]}: expected a whole number of 64 bits"
        raise InvalidRequest("INVALID_STEP", message, {"field": name})
    return number


def checked_timestamp(timestamp: SupportsIndex | SupportsFloat) -> int:
    """Return a time in whole milliseconds; a fraction of one is dropped.

    Raises:
        InvalidRequest: INVALID_STEP.
    """
    if isinstance(timestamp, float) and math.isfinite(timestamp):
        timestamp = math.floor(timestamp)
    return checked_step(timestamp, "timestamp")


def _whole(value: Any) -> int | None:
    """Return the whole number that a value is; None for any other value."""
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
    # Arrays and tensors with one number have it as an item, also those whose float() warns or fails.
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def checked_params(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as texts of at most 6,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_run_key(key): _checked_text(key, str(value), PARAM_CHARACTERS) for key, value in params.items()}


def checked_run_tags(tags: Mapping[str, object] | None) -> dict[str, str]:
    """Tags of a run, an experiment or a logged model as texts of at most 8,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_run_key(key): _checked_text(key, str(value), TAG_CHARACTERS) for key, value in (tags or {}).items()}


def checked_input_tags(context: str, tags: Mapping[str, object] | None) -> dict[str, str]:
    """Tags of a dataset that a run reads, "context" among them, as texts of at most 500 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    labels = {**({"context": context} if context else {}), **(tags or {})}
    return {checked_run_key(key): _checked_text(key, str(value), INPUT_TAG_CHARACTERS) for key, value in labels.items()}


def checked_tags(tags: Mapping[str, object] | None) -> dict[str, str]:
    """Tags of a model or a version as texts of at most 8,000 characters.

    Raises:
        InvalidRequest: INVALID_KEY, INVALID_VALUE.
    """
    return {checked_key(key): _checked_text(key, str(value), TAG_CHARACTERS) for key, value in (tags or {}).items()}


def _checked_text(key: str, text: str, most: int) -> str:
    if len(text) > most or "\0" in text or not _is_unicode(text):
        message = f"the value of {key!r} is a text of at most {most} characters, none NUL; this one has {len(text)}"
        raise InvalidRequest("INVALID_VALUE", message, {"key": key})
    return text


def _not_a_number(key: str, value: object) -> InvalidRequest:
    message = f"metric {key!r} takes a number, not {repr(value)[:80]} ({type(value).__name__})"
    return InvalidRequest("INVALID_VALUE", message, {"key": key})


def _is_unicode(text: str) -> bool:
    # Half of a surrogate pair, as os.fsdecode leaves it, has no UTF-8.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
