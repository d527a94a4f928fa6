"""Names of files that Windows would not take as names: devices, streams, and what it drops from an end."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

# With any extension, in any case, the digits as superscripts too.
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}])"
    r"[ ]*(\..*)?",
    re.IGNORECASE | re.DOTALL,
)
_SPECIAL: Final = re.compile(r'[<>:"|?*\\]')


def check_writable(paths: Iterable[str], *, windows: bool = os.name == "nt") -> None:
    """Refuse paths whose names this machine would write somewhere else, or to a device.

    Elsewhere than on Windows every path of an artifact is a plain name below the destination.

    Raises:
        InvalidRequest: INVALID_PATH.
    """
    for path in paths if windows else ():
        if fault := next(filter(None, map(windows_fault, path.split("/"))), ""):
            message = f"the path {path!r} cannot be written on Windows: {fault}"
            raise InvalidRequest("INVALID_PATH", message, {"path": path})


def windows_fault(name: str) -> str:
    """Return what Windows makes of a name other than a file of that name; empty when it takes it as it is."""
    if _DEVICE.fullmatch(name):
        return f"{name!r} is a device"
    if found := _SPECIAL.search(name):
        return f"{name!r} has {found[0]!r}"
    return f"{name!r} ends in a dot or a space, which is dropped" if name[-1:] in {".", " "} else ""
