"""Escaping of text, so that it cannot control a terminal or run as a spreadsheet formula."""

from __future__ import annotations

from typing import Final

# A formula's first characters; some spreadsheets accept the full-width forms too.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}")
_FORMULA_MORE: Final = ("\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with unprintable characters as escapes, like ``\x1b`` and ``\u202e``, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def printable_json(text: str) -> str:
    """Return equivalent JSON with unprintable characters as JSON escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2))


def csv_cell(text: str) -> str:
    """Return a text as a CSV cell: escaped except for line feeds and tabs, and never a spreadsheet formula.

    An apostrophe is added in front of text that looks like a formula.
    """
    cell = printable(text, keep="\n\t")
    return f"'{cell}" if text.lstrip(" ").startswith((*_FORMULA, *_FORMULA_MORE)) else cell
