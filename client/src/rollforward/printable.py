"""Text that cannot command a terminal: control characters and directional overrides are shown, not sent."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text with everything that is not printable written as an escape, such as ``\\x1b`` or ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
