"""Texts of errors: that of many is empty, and the name of a class helps nobody."""

from __future__ import annotations

import re

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def error_text(error: BaseException) -> str:
    """Return what an error says, on one line; in words what kind of error it is if it says nothing."""
    text = " ".join(str(error).split())
    if text:
        return f"missing key {text}" if type(error) is KeyError else text
    if error.__cause__ is not None:
        return error_text(error.__cause__)
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, MemoryError):
        return "out of memory"
    return kind_of(error)


def kind_of(error: BaseException) -> str:
    """Return what kind of error it is: "connection reset error" of a ConnectionResetError."""
    return " ".join(_PART.findall(type(error).__name__)).lower()
