"""Validation of the names and texts in the contract."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache

from google.protobuf.message import Message

from eventstore import Kind, Rejected

_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LIKE_A_VERSION = re.compile(r"[vV]?[0-9]+|latest", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_LOGGED_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_KEY = re.compile(r"[/\w.\- :]+")

MAX_KEY_LENGTH = 250
"""The maximum length of the key of a parameter, metric or tag, in characters."""

MAX_TAG_LENGTH = 8000
"""The maximum length of a tag's value, in characters."""

MAX_DESCRIPTION_LENGTH = 20_000
"""The maximum length of a description, in characters."""


def check_model_name(name: str) -> None:
    """Raise `Rejected` INVALID_NAME unless the name is 1 to 255 characters that fit a reference and a path."""
    check_text(name, "model name", 255, "INVALID_NAME")
    if bad := sorted(set(name) & set("/:@")):
        raise Rejected(
            Kind.INVALID, "INVALID_NAME", f"invalid model name {name!r}: it must not contain {' '.join(bad)}", name=name
        )


def check_alias(alias: str) -> None:
    """Raise `Rejected` INVALID_ALIAS unless the alias is a word that cannot be taken for a version."""
    if not _ALIAS.fullmatch(alias):
        message = f"invalid alias {alias[:300]!r}: expected 1 to 255 letters, digits, '-' and '_'"
        raise Rejected(Kind.INVALID, "INVALID_ALIAS", message, alias=alias[:300])
    if _LIKE_A_VERSION.fullmatch(alias):
        raise Rejected(Kind.INVALID, "INVALID_ALIAS", f"invalid alias {alias!r}: it looks like a version", alias=alias)


def check_digest(digest: str) -> None:
    """Raise `Rejected` INVALID_DIGEST unless it is written ``sha256:<64 lower-case hex digits>``."""
    if not _DIGEST.fullmatch(digest):
        raise Rejected(
            Kind.INVALID,
            "INVALID_DIGEST",
            f"invalid digest {digest[:100]!r}: expected sha256: and 64 hex digits",
            digest=digest[:100],
        )


def check_id(value: str, reason: str) -> None:
    """Raise `Rejected` with this reason unless the id is 32 lower-case hex digits."""
    if not _ID.fullmatch(value):
        raise Rejected(
            Kind.INVALID, reason, f"invalid id {value[:100]!r}: expected 32 lower-case hex digits", id=value[:100]
        )


def check_logged_model_id(value: str) -> None:
    """Raise `Rejected` INVALID_MODEL_ID unless the id is "m-" and 32 lower-case hex digits."""
    if not _LOGGED_MODEL_ID.fullmatch(value):
        message = f"invalid logged model id {value[:100]!r}: expected 'm-' and 32 lower-case hex digits"
        raise Rejected(Kind.INVALID, "INVALID_MODEL_ID", message, id=value[:100])


def check_key(key: str, field: str) -> None:
    """Raise `Rejected` INVALID_KEY unless the key of a parameter, metric or tag is field MLflow allows, too.

    That is 1 to 250 letters and digits of any script, blanks and ``/ . - _ :``, which as a path is relative and in its
    shortest form.
    """
    if not (len(key) <= MAX_KEY_LENGTH and _is_key(key)):
        message = (
            f"invalid {field} {key[:300]!r}: expected 1 to {MAX_KEY_LENGTH} letters, digits, blanks and / . - _ :, "
            "which as a path is relative, without '..' and in its shortest form"
        )
        raise Rejected(Kind.INVALID, "INVALID_KEY", message, key=key[:300])


# A job logs the same few keys repeatedly.
@lru_cache(maxsize=10_000)
def _is_key(key: str) -> bool:
    if not _KEY.fullmatch(key) or key == "." or key.startswith(("/", "..")):
        return False
    return posixpath.normpath(key) == key


def check_text(value: str, field: str, max_length: int, reason: str, *, min_length: int = 1) -> None:
    """Raise `Rejected` with this reason unless a text is that long, trimmed, printable and in normal form C."""
    if not min_length <= len(value) <= max_length:
        message = f"invalid {field}: expected {min_length} to {max_length} characters, got {len(value)}"
    elif value != value.strip() or not value.isprintable():
        message = f"invalid {field} {value[:300]!r}: expected no blanks at the ends and no control characters"
    elif not unicodedata.is_normalized("NFC", value):
        message = f"invalid {field} {value[:300]!r}: expected Unicode normal form C"
    else:
        return
    raise Rejected(Kind.INVALID, reason, message, name=value[:300])


def check_prose(value: str, field: str, max_length: int, reason: str) -> None:
    """Raise `Rejected` with this reason unless a text, of any lines, is that long and free of control characters."""
    if len(value) > max_length:
        message = f"invalid {field}: expected at most {max_length} characters, got {len(value)}"
    elif any(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in value):
        message = f"invalid {field}: expected no control characters except tabs and line ends"
    else:
        return
    raise Rejected(Kind.INVALID, reason, message)


def check_texts(request: Message) -> None:
    """Raise `Rejected` INVALID_TEXT when a text has the character NUL, which PostgreSQL cannot hold."""
    for name, text in _texts(request):
        if "\0" in text:
            raise Rejected(
                Kind.INVALID, "INVALID_TEXT", f"invalid {name}: it must not contain the character NUL", field=name
            )


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        if field.type not in {field.TYPE_STRING, field.TYPE_MESSAGE}:
            continue
        parts = [value] if isinstance(value, str | Message) else list(value)
        if isinstance(value, Mapping):
            parts += value.values()
        for part in parts:
            if isinstance(part, str):
                yield field.name, part
            elif isinstance(part, Message):
                yield from _texts(part)
