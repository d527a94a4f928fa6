"""Warnings about successful calls whose outcome may be unintended."""

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


def warn(text: str) -> None:
    """Warn the program, and log the warning if logging is configured; this never raises."""
    if _log.hasHandlers():
        _log.warning("%s", text)
    with contextlib.suppress(RollforwardWarning):
        warnings.warn(text, RollforwardWarning, stacklevel=4)


def warn_new_aliases(created: Iterable[v1.NewAlias]) -> None:
    """Warn about new aliases with names similar to others."""
    for new in created:
        if new.near:
            warn(f"{new.model}@{new.alias} was not set before. Did you mean {near_names(new.near)}?")


def near_names(near: Sequence[v1.NearAlias]) -> str:
    """Return names as text, such as ``@champion (v2, protected by policy prod) or @challenger (v1)``."""
    return " or ".join(f"@{alias.alias}{_details(alias)}" for alias in near)


def _details(near: v1.NearAlias) -> str:
    details = [f"v{near.version}"] if near.version else ["not set"]
    if near.policies:
        details.append(f"protected by policy {', '.join(near.policies)}")
    return f" ({', '.join(details)})"


def warn_unchanged(alias: v1.Alias, reason: str) -> None:
    """Warn that a move changed nothing, if it has a reason."""
    if reason:
        name = f"{alias.model}@{alias.alias}"
        warn(f"unchanged: {name} already points to v{alias.version}, so the reason was not recorded")


def warn_status(model: str, version: int, status: str, response: v1.SetVersionStatusResponse) -> None:
    """Warn about aliases that point, or are scheduled to point, to a version that is not ready."""
    if status == "ready":
        return
    if response.aliases:
        names = ", ".join(f"@{alias}" for alias in response.aliases)
        warn(f"v{version} of {model} is {status}, but {names} still point to it: move them")
    warn_scheduled(f"v{version} of {model} is {status}", response.scheduled_aliases)


def warn_scheduled(change: str, aliases: Sequence[str]) -> None:
    """Warn about scheduled moves that will be rejected."""
    if aliases:
        names = ", ".join(f"@{alias}" for alias in aliases)
        warn(f"{change}: the scheduled moves of {names} will be rejected at their time")
