"""A log that loses events at the end of a history: its tail, all since a copy was made, or everything."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc

from rollforward import Client, NotFound, v1
from rollforward.errors import from_rpc_error
from tests.e2e.program import until
from tests.histories.recorded.log import head
from tests.histories.recorded.subjects import Loss
from tests.histories.systems.system import System
from tests.timeouts import scaled

LOGS = ("tracking", "registry", "serving", "webhooks")
TAIL_BYTES = 1_500
_MOVES = 6
_SECONDS = scaled(30.0)


class Losing:
    """One loss of a system that holds everything in one data directory.

    Args:
        system: The system; its process runs.
        model: A model with two versions at least.
        dice: Decides whether the whole log is put back in the end, or its loss accepted.
    """

    def __init__(self, system: System, model: str, dice: random.Random) -> None:
        assert system.data is not None
        self._data: Path = system.data
        self._system, self._model, self._dice = system, model, dice
        self._log, self._whole = self._data / "nats", self._data.parent / "whole"
        self._copy = self._data.parent / "copy"
        [(self._address, self._process)] = system.registries.items()
        self._client = Client(self._address, actor="operator")
        self._steps: dict[str, str] = {}
        self._digest = ""

    def suffer(self, kind: str) -> Loss:
        """Make the log lose events, start the services, then restore the log or accept the loss."""
        try:
            with _Follower(self._model, self._client) as follower:
                last = self._lose(kind)
                files = self._files()
                refused, reason = self._start_refused()
                if not refused:
                    return Loss(kind, last, refused, reason, kept_rows=False, accepted=False)
                kept_rows = self._files() == files
                accepts = self._dice.random() < 0.5
                (self._accept if accepts else self._put_back)(last, follower)
                return Loss(kind, last, refused, reason, kept_rows, accepts, self._steps)
        finally:
            self._client.close()

    def _lose(self, kind: str) -> int:
        """Make moves that are known to the rows, then lose them; return the revision of the last."""
        self._digest = self._client.versions.get(self._model, 1).digest
        if kind == "restored copy":
            self._process.stop()
            shutil.copytree(self._log, self._copy)
            self._process.start()
        last = [self._move(1 + number % 2) for number in range(_MOVES)][-1]
        self._wait_for_rows()
        self._process.stop()
        if kind == "lost tail":
            shutil.copytree(self._log, self._whole)
            cut_tail(self._log)
        else:
            self._log.rename(self._whole)
        if kind == "restored copy":
            self._copy.rename(self._log)
        return last

    def _move(self, version: int, **fields: Any) -> int:
        request = v1.MoveAliasRequest(model=self._model, alias="champion", version=version, **fields)
        return self._client.connection.call(self._client.connection.registry.MoveAlias, request).position

    def _wait_for_rows(self) -> None:
        last = asyncio.run(head(self._system.nats.address))

        def received() -> bool:
            status = self._client.connection.call(self._client.connection.systems[0].GetStatus, v1.GetStatusRequest())
            return all(one.position >= last for one in status.projections if one.log == "registry")

        until(received, "the rows have all events")

    def _files(self) -> Mapping[str, str]:
        """Return the digests of the rows' files."""
        rows = self._data / "rows"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(rows.glob("*.db"))}

    def _start_refused(self) -> tuple[bool, str]:
        """Start; return whether that was refused, and the reason."""
        before = self._process.log.stat().st_size
        self._process.spawn()
        refused = not self._process.starts()
        said = self._process.log.read_bytes()[before:].decode(errors="replace")
        return refused, "LOG_LOST" if "LOG_LOST" in said else said[-500:]

    def _put_back(self, last: int, follower: _Follower) -> None:
        shutil.rmtree(self._log, ignore_errors=True)
        self._whole.rename(self._log)
        self._process.start()
        self._steps["revision after it was put back"] = str(self._resolved())
        self._steps["revision before"] = str(last)
        self._steps["watched"] = str(follower.comes_to(self._move(1 if self._version() == 2 else 2)))

    def _accept(self, last: int, follower: _Follower) -> None:
        self._process.spawn(*(part for log in LOGS for part in ("--accept-log-loss", log)))
        self._process.ready()
        moving = v1.MoveAliasRequest(model=self._model, alias="champion", version=1, expected_revision=last)
        resume = v1.WatchAliasesRequest(model=self._model, from_revision=last)
        self._steps["epochs begun"] = str(self._epochs_begun())
        self._register_again()
        self._try_old("", moving, resume)
        # After the last revision of the previous epoch, whose numbers name other events.
        for number in range(_MOVES * 3):
            self._move(1 + number % 2)
        self._try_old(", passed", moving, resume)
        self._steps["watch began again"] = str(follower.begins_again())
        self._steps["watched"] = str(follower.comes_to(self._move(1 if self._version() == 2 else 2)))

    def _try_old(self, when: str, moving: v1.MoveAliasRequest, resume: v1.WatchAliasesRequest) -> None:
        """Ask as a client does that knows the epoch before."""
        registry, plain = self._client.connection.registry, (("rollforward-actor", "operator"),)
        self._steps[f"old expected revision{when}"] = _reason(
            lambda: registry.MoveAlias(moving, timeout=_SECONDS, metadata=plain)
        )
        self._steps[f"old position{when}"] = _reason(
            lambda: next(registry.WatchAliases(resume, timeout=_SECONDS, metadata=plain))
        )

    def _register_again(self) -> None:
        """Make what was lost with a whole log, so that there is something to move."""
        try:
            self._version()
        except NotFound:
            for _ in range(2):
                self._client.versions.register(self._model, digest=self._digest)

    def _epochs_begun(self) -> int:
        request = v1.ListEventsRequest(log="registry", type="rollforward.v1.LogEpochBegan")
        return len(self._client.connection.call(self._client.connection.audit.ListEvents, request).events)

    def _resolved(self) -> int:
        request = v1.ResolveAliasRequest(model=self._model, alias="champion")
        return self._client.connection.call(self._client.connection.registry.ResolveAlias, request).alias.revision

    def _version(self) -> int:
        request = v1.ResolveAliasRequest(model=self._model, alias="champion")
        return self._client.connection.call(self._client.connection.registry.ResolveAlias, request).alias.version


def cut_tail(log: Path) -> None:
    """Cut the end off the registry log's last file, as a disk that lost its last writes."""
    messages = next(log.glob("**/streams/rf-registry/msgs"))
    block = max(messages.glob("*.blk"), key=lambda path: int(path.stem))
    with block.open("r+b") as file:
        file.truncate(max(0, block.stat().st_size - TAIL_BYTES))
    (messages / "index.db").unlink(missing_ok=True)


def _reason(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return from_rpc_error(error).reason
    return ""


class _Follower:
    """A watch of the SDK, with the revisions that it gave."""

    def __init__(self, model: str, client: Client) -> None:
        self._watch = client.aliases.watch(model)
        self._revisions: list[int] = []
        self._thread = threading.Thread(target=self._follow, name="follower")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.close()
        self._thread.join()

    def begins_again(self) -> bool:
        """Return whether it comes to another epoch before long."""
        return _wait_until(lambda: self._watch.epoch > 0)

    def comes_to(self, revision: int) -> bool:
        """Return whether it gives a revision before long."""
        return _wait_until(lambda: revision in self._revisions)

    def _follow(self) -> None:
        for change in self._watch:
            self._revisions.append(change.revision)


def _wait_until(condition: Callable[[], bool]) -> bool:
    try:
        until(condition, "the watch", _SECONDS)
    except AssertionError:
        return False
    return True
