"""Planted bugs of watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import services.registry.servicer as registry
from rollforward import v1
from tests.histories.bugs.planting import replace_attribute

_Steps = AsyncIterator[v1.WatchAliasesResponse]


def watch_loses_a_change_on_resume() -> None:
    """Skip the first change after the position from which a watch resumes."""

    async def forgetful(steps: _Steps, request: v1.WatchAliasesRequest) -> _Steps:
        to_lose = request.HasField("from_revision")
        async for step in steps:
            if to_lose and step.HasField("changes"):
                to_lose = False
            else:
                yield step

    _filter_watches(forgetful)


def watch_repeats_after_reconnect() -> None:
    """Resume a watch a few events before its position."""
    watch = registry.RegistryServicer.WatchAliases

    def from_earlier(servicer: Any, request: v1.WatchAliasesRequest, context: Any) -> Any:
        if request.HasField("from_revision"):
            request.from_revision = max(0, request.from_revision - 3)
        return watch(servicer, request, context)

    replace_attribute(registry.RegistryServicer, "WatchAliases", from_earlier)


def watch_splits_an_append() -> None:
    """Deliver the changes of one append one by one."""

    async def one_by_one(steps: _Steps, request: v1.WatchAliasesRequest) -> _Steps:
        async for step in steps:
            if not step.HasField("changes"):
                yield step
            for change in step.changes.changes:
                yield v1.WatchAliasesResponse(changes=v1.AliasChanges(changes=[change]), position=step.position)

    _filter_watches(one_by_one)


def watch_swaps_steps() -> None:
    """Swap every second change of a watch with the next one."""

    async def swapped(steps: _Steps, request: v1.WatchAliasesRequest) -> _Steps:
        kept: v1.WatchAliasesResponse | None = None
        async for step in steps:
            if kept is None and step.HasField("changes"):
                kept = step
                continue
            yield step
            if kept is not None:
                yield kept
                kept = None

    _filter_watches(swapped)


def _filter_watches(changed: Callable[[_Steps, v1.WatchAliasesRequest], _Steps]) -> None:
    watch = registry.RegistryServicer.WatchAliases

    def filtered(servicer: Any, request: v1.WatchAliasesRequest, context: Any) -> Any:
        return changed(watch(servicer, request, context), request)

    replace_attribute(registry.RegistryServicer, "WatchAliases", filtered)
