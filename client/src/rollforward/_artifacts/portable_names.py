"""File names that Windows does not accept: devices, streams, and names with a dot or space at the end."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

# With any extension, in any case, and with superscript digits.
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}])"
    r"[ ]*(\..*)?",
    re.IGNORECASE | re.DOTALL,
)
_SPECIAL: Final = re.compile(r'[<>:"|?*\\]')


def check_writable(paths: Iterable[str], *, windows: bool = os.name == "nt") -> None:
    """Check that this machine writes paths as they are named, and not elsewhere or to a device.

    Except on Windows, every path of an artifact is a plain name below the destination.

    Raises:
        InvalidRequest: INVALID_PATH.
    """
    for path in paths if windows else ():
        if fault := next(filter(None, map(windows_fault, path.split("/"))), ""):
            message = f"cannot write {path!r} on Windows: {fault}"
            raise InvalidRequest("INVALID_PATH", message, {"path": path})


def windows_fault(name: str) -> str:
    """Return why Windows does not accept a name as a file's; empty if it does."""
    if _DEVICE.fullmatch(name):
        return f"{name!r} is a device name"
    if special := _SPECIAL.search(name):
        return f"{name!r} contains {special[0]!r}"
    return f"{name!r} ends with a dot or a space, which Windows drops" if name[-1:] in {".", " "} else ""
