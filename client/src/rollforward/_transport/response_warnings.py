"""Warnings about calls that succeeded, and whose outcome may not be what was meant."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward.errors import RollforwardWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log: Final = logging.getLogger("rollforward")


def notice(text: str) -> None:
    """Warn the program, and log the warning where somebody listens. The call succeeded, so nothing is raised."""
    if _log.hasHandlers():
        _log.warning("%s", text)
    with contextlib.suppress(RollforwardWarning):
        warnings.warn(text, RollforwardWarning, stacklevel=4)


def notice_new(created: Iterable[v1.NewAlias]) -> None:
    """Warn of new aliases whose names are near others."""
    for one in created:
        if one.near:
            notice(f"{one.model}@{one.alias} was not set before. Did you mean {near_names(one.near)}?")


def near_names(near: Sequence[v1.NearAlias]) -> str:
    """Return names such as ``@champion (v2, protected by policy prod) or @challenger (v1)``."""
    return " or ".join(f"@{one.alias}{_details(one)}" for one in near)


def _details(near: v1.NearAlias) -> str:
    details = [f"v{near.version}"] if near.version else ["not set"]
    if near.policies:
        details.append(f"protected by policy {', '.join(near.policies)}")
    return f" ({', '.join(details)})"


def notice_unchanged(alias: v1.Alias, reason: str) -> None:
    """Warn that a move wrote nothing, when a reason was given for it."""
    if reason:
        name = f"{alias.model}@{alias.alias}"
        notice(f"unchanged: {name} points to v{alias.version} already, so the reason was not recorded")


def notice_status(model: str, version: int, status: str, response: v1.SetVersionStatusResponse) -> None:
    """Warn that a version cannot be used that aliases point to, or will."""
    if status == "ready":
        return
    if response.aliases:
        names = ", ".join(f"@{alias}" for alias in response.aliases)
        notice(f"v{version} of {model} is {status}, but {names} still point to it: move them")
    notice_scheduled(f"v{version} of {model} is {status}", response.scheduled_aliases)


def notice_scheduled(change: str, aliases: Sequence[str]) -> None:
    """Warn that scheduled moves will be refused."""
    if aliases:
        names = ", ".join(f"@{alias}" for alias in aliases)
        notice(f"{change}: the scheduled moves of {names} will be refused when their time comes")
