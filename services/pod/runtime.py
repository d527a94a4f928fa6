"""What a pod serves: for each alias the assignment it wants, the version that answers, and the one before it."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog
from typing_extensions import override

from eventstore import error_text
from rollforward.v1 import Assignment
from services.pod.batcher import Batcher
from services.pod.models import Model

MAX_ERROR = 1000  # characters

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class NotServed(Exception):
    """The pod does not answer for this model, alias or version."""


class NotReady(Exception):
    """The pod follows this alias and has no version of it to answer with yet."""


class VersionRefused(NotReady):
    """The alias's version cannot be served here, and there is none before it: only another assignment changes that."""


class Target(NamedTuple):
    """An alias that the pod follows."""

    model: str
    alias: str

    @override
    def __str__(self) -> str:
        return f"{self.model}@{self.alias}"


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model in memory, with the lane that it predicts in."""

    digest: str
    model: Model
    lane: Batcher


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """A loaded model as the answer to one assignment: what a request binds when it is admitted."""

    target: Target
    assignment: Assignment
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an assignment: it is served (or, of version 0, no longer served), or why not."""

    target: Target
    assignment: Assignment
    error: str
    seconds: float  # since the pod heard of it
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


Load = Callable[[Assignment], Awaitable[Loaded]]
"""Brings an assignment's model into memory, verified and warm; whatever it raises refuses the assignment."""
Report = Callable[[Outcome], None]


class Slot:
    """One alias: the newest assignment wins, and the pointer to the version that answers moves last.

    A revision is never followed by an older one. An alias that was removed is no longer answered for: someone said that
    no version is live, and a pod that went on would hide it. Its model stays warm for the alias's return.
    """

    def __init__(self, target: Target, load: Load, report: Report) -> None:
        self.target = target
        self.desired = Assignment()
        self.current: Serving | None = None
        self.previous: Serving | None = None
        self.error = ""
        self._load = load
        self._report = report
        self._loading: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def removed(self) -> bool:
        """Whether the alias was set once and is no more."""
        return self.desired.revision > 0 and self.desired.version == 0

    def offer(self, assignment: Assignment) -> None:
        """Accept an assignment that is newer than the current one; a warm model is served at once.

        In another epoch of the registry log every assignment is newer: its revisions cannot be compared with ours.
        """
        if assignment.epoch != self.desired.epoch:
            if not assignment.revision and self.current is not None:
                _log.warning("the alias is not set in the new epoch: serving goes on", target=str(self.target))
                self.desired = assignment
                return
        elif assignment.revision <= self.desired.revision:
            if assignment.revision < self.desired.revision:
                _log.warning("older assignment ignored", target=str(self.target), revision=assignment.revision)
            return
        received = time.monotonic()
        self.desired, self.error = assignment, ""
        self._cancel()
        if assignment.version == 0:
            self._point(None)
            self._conclude(assignment, received)
        elif (warm := self._warm(assignment.digest)) is not None:
            self._swap(assignment, warm, received)
        else:
            self._loading = asyncio.create_task(self._load_then_swap(assignment, received))

    def _warm(self, digest: str) -> Loaded | None:
        known = (serving.loaded for serving in (self.current, self.previous) if serving is not None)
        return next((loaded for loaded in known if loaded.digest == digest), None)

    async def _load_then_swap(self, assignment: Assignment, received: float) -> None:
        try:
            loaded = await self._load(assignment)
        except Exception as error:  # noqa: BLE001 - a model's bytes may raise anything
            _log.exception("assignment refused", target=str(self.target), version=assignment.version)
            self._conclude(assignment, received, f"{type(error).__name__}: {error_text(error)}"[:MAX_ERROR])
        else:
            self._swap(assignment, loaded, received)

    def _swap(self, assignment: Assignment, loaded: Loaded, received: float) -> None:
        self._point(Serving(self.target, assignment, loaded))
        self._conclude(assignment, received)

    def _point(self, new: Serving | None) -> None:
        before, self.current = self.current, new
        dropped = None
        if before is not None and (new is None or before.loaded is not new.loaded):
            dropped, self.previous = self.previous, before
        kept = {serving.loaded for serving in (self.current, self.previous) if serving is not None}
        if dropped is not None and dropped.loaded not in kept:
            self._close(dropped.loaded)

    def _conclude(self, assignment: Assignment, received: float, error: str = "") -> None:
        self.error = error
        self._report(Outcome(self.target, assignment, error, time.monotonic() - received))

    def _close(self, loaded: Loaded) -> None:
        closing = asyncio.create_task(loaded.lane.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _cancel(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None

    async def close(self) -> None:
        """Stop loading, answer what was admitted and let go of every model."""
        self._cancel()
        for loaded in {serving.loaded for serving in (self.current, self.previous) if serving is not None}:
            self._close(loaded)
        self.current = self.previous = None
        if self._closing:
            await asyncio.wait(self._closing)


class Runtime:
    """All aliases of a pod."""

    def __init__(self, targets: Iterable[Target], load: Load, report: Report) -> None:
        self.slots = {target: Slot(target, load, report) for target in targets}

    @property
    def ready(self) -> bool:
        """Whether every alias has a version, not counting those removed, and at least one has.

        A removed alias does not count: taking the whole pod out of service for it would silence the others.
        """
        waiting = any(slot.current is None for slot in self.slots.values() if not slot.removed)
        return not waiting and any(slot.current is not None for slot in self.slots.values())

    def offer(self, assignment: Assignment) -> None:
        """Pass an assignment to the slot of its alias; other aliases are ignored."""
        slot = self.slots.get(Target(assignment.target.model, assignment.target.alias))
        if slot is None:
            _log.warning(
                "assignment of an alias that is not followed",
                target=f"{assignment.target.model}@{assignment.target.alias}",
            )
            return
        slot.offer(assignment)

    def find(self, name: str) -> list[Slot]:
        """Return the aliases that a request's model name means: `NAME@ALIAS` one, `NAME` all of the model, in order."""
        return [slot for target, slot in self.slots.items() if name in (str(target), target.model)]

    def admit(self, name: str, version: str) -> Serving:
        """Return what answers a request: the first alias's current version, or of all of them the one of that number.

        Raises NotServed: no such alias here, or it was removed, or the version is neither current nor the one before.
        Raises NotReady: nothing was loaded yet. VersionRefused: nothing can be.
        """
        slots = self.find(name)
        if version:
            return _of_version(slots, name, version)
        if not slots or slots[0].removed:
            raise NotServed(f"{name!r} is not served here")
        return slots[0].current or _not_ready(slots[0])

    def versions(self, name: str) -> list[int]:
        """Return the version numbers that requests for this name may ask for."""
        served = (serving for slot in self.find(name) if not slot.removed for serving in (slot.current, slot.previous))
        return sorted({serving.assignment.version for serving in served if serving is not None})

    def assignments(self) -> list[Assignment]:
        """Return what is served now, with the removed aliases as such."""
        served = [slot.current.assignment for slot in self.slots.values() if slot.current is not None]
        return served + [slot.desired for slot in self.slots.values() if slot.removed]

    async def close(self) -> None:
        """Close the slots of all aliases."""
        await asyncio.gather(*(slot.close() for slot in self.slots.values()))


def _of_version(slots: list[Slot], name: str, version: str) -> Serving:
    for slot in slots:
        for serving in () if slot.removed else (slot.current, slot.previous):
            if serving is not None and str(serving.assignment.version) == version:
                return serving
    raise NotServed(f"version {version} of {name!r} is not served here")


def _not_ready(slot: Slot) -> Serving:
    if slot.error:
        way_out = "Move the alias to another version"
        raise VersionRefused(f"{slot.target}: cannot load v{slot.desired.version}: {slot.error}. {way_out}")
    why = "its version is loading" if slot.desired.version else "the alias is not set"
    raise NotReady(f"{slot.target} is not ready: {why}")
