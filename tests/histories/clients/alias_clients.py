"""Clients that move and resolve aliases, each in its own thread, and record requests and results."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rollforward import Client, Conflict, RollforwardError, new_request_id, v1
from tests.histories.clients.ledger import Ledger
from tests.histories.clients.requests import FAILED, send
from tests.histories.recorded.recording import OK, UNKNOWN, Assignment, Intent, Operation, Target
from tests.histories.systems.clocks import ClientClock

VERSIONS = 3
KINDS = {
    "move": 30, "conditional move": 25, "release set": 8, "remove": 4, "rollback": 6, "schedule": 3,
    "resolve": 28, "resolve as of": 6, "resolve at time": 4, "repeat": 6,
}  # fmt: skip

Asking = tuple[Operation, str, Any]
"""The operation, the method's name, the request."""


class AliasClient:
    """A client that sends one request after another to any registry, and remembers what it has seen.

    `began` is a position at which its models already existed; `stuck` is the error after which nothing can continue.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[str],
        targets: Sequence[Target],
        began: int,
        shared: tuple[ClientClock, Ledger],
        dice: random.Random,
    ) -> None:
        self.operations: list[Operation] = []
        self.stuck = ""
        self._name, self._targets, self._dice = name, targets, dice
        self._clock, self._ledger = shared
        self._clients = [Client(address, actor=name) for address in addresses]
        self._client = dice.choice(self._clients)
        self._known: dict[Target, Assignment] = {}
        self._seen = [began]
        self._times: list[int] = []
        self._asked: list[Asking] = []

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def work(self, stopping: threading.Event) -> None:
        """Send requests until stopped."""
        while not stopping.wait(self._dice.choice([0.0, 0.0, 0.01])):
            if self._dice.random() < 0.1:
                self._client = self._dice.choice(self._clients)
            (kind,) = self._dice.choices(list(KINDS), list(KINDS.values()))
            self._do(*self._draw(kind), stopping)

    def _draw(self, kind: str) -> Asking:
        target = self._dice.choice([self._targets[0], *self._targets])
        draw: dict[str, Callable[[], Asking]] = {
            "move": lambda: self._move(target, None),
            "conditional move": lambda: self._move(target, self._expected(target)),
            "release set": self._release_set,
            "remove": lambda: self._remove(target),
            "rollback": lambda: self._rollback(target),
            "schedule": lambda: self._schedule(target),
            "resolve": lambda: self._resolve(target, None),
            "resolve as of": lambda: self._resolve(target, self._dice.choice(self._seen[-50:])),
            "resolve at time": lambda: self._resolve_at_time(target),
            "repeat": lambda: self._dice.choice(self._asked[-8:]) if self._asked else self._resolve(target, None),
        }
        return draw[kind]()

    def _remove(self, target: Target) -> Asking:
        request = v1.RemoveAliasRequest(model=target.model, alias=target.alias)
        return self._command("remove", (Intent(*target, 0),)), "RemoveAlias", request

    def _command(self, kind: str, wanted: tuple[Intent, ...]) -> Operation:
        return Operation(self._name, kind, wanted, 0, None, UNKNOWN)

    def _move(self, target: Target, expected: int | None) -> Asking:
        version = self._dice.randint(1, VERSIONS)
        request = v1.MoveAliasRequest(
            model=target.model, alias=target.alias, version=version, expected_revision=expected
        )
        return self._command("move", (Intent(*target, version, expected),)), "MoveAlias", request

    def _schedule(self, target: Target) -> Asking:
        """Schedule a move for later; its client does not learn here how it ends."""
        version = self._dice.randint(1, VERSIONS)
        expected = self._expected(target) if self._dice.random() < 0.3 else None
        request = v1.ScheduleMoveRequest(
            model=target.model, alias=target.alias, version=version, expected_revision=expected
        )
        request.at.FromNanoseconds(self._clock.time_ns() + self._dice.randint(0, 800_000_000))
        return self._command("schedule", (Intent(*target, version, expected),)), "ScheduleMove", request

    def _release_set(self) -> Asking:
        chosen = self._dice.sample(self._targets, self._dice.randint(2, len(self._targets)))
        wanted = tuple(
            Intent(
                *target, self._dice.randint(1, VERSIONS), self._expected(target) if self._dice.random() < 0.2 else None
            )
            for target in chosen
        )
        request = v1.MoveAliasesRequest()
        for one in wanted:
            request.targets.add(model=one.model, alias=one.alias, version=one.version, expected_revision=one.expected)
        return self._command("release set", wanted), "MoveAliases", request

    def _rollback(self, target: Target) -> Asking:
        everything = self._dice.random() < 0.5
        scope = [one for one in self._targets if one.model == target.model] if everything else [target]
        request = v1.RollbackRequest(models=target.model, aliases="*" if everything else target.alias)
        at = self._dice.choice(self._seen[-20:]) if self._dice.random() < 0.5 else None
        if at is not None:
            request.as_of.position = at
        since = max(self._seen[-20:]) if self._dice.random() < 0.3 else None
        if since is not None:
            request.expected_position = since
        operation = self._command("rollback", tuple(Intent(*one) for one in scope))
        return replace(operation, at=at, since=since), "Rollback", request

    def _resolve(self, target: Target, at: int | None) -> Asking:
        request = v1.ResolveAliasRequest(model=target.model, alias=target.alias)
        if at is not None:
            request.at.position = at
        kind = "resolve" if at is None else "resolve as of"
        return replace(self._command(kind, (Intent(*target),)), at=at), "ResolveAlias", request

    def _resolve_at_time(self, target: Target) -> Asking:
        """Resolve the time at which an assignment was made, as the log has it, or a moment before."""
        if not self._times:
            return self._resolve(target, None)
        time_ns = self._dice.choice(self._times[-20:]) - self._dice.choice([0, 1])
        request = v1.ResolveAliasRequest(model=target.model, alias=target.alias)
        request.at.time.FromNanoseconds(time_ns)
        return (
            replace(self._command("resolve at time", (Intent(*target),)), at_time=time_ns),
            "ResolveAlias",
            request,
        )

    def _expected(self, target: Target) -> int:
        """Return the revision of an alias that this client saw last, sometimes an older one."""
        return self._known[target].revision if target in self._known else 0

    def _do(self, operation: Operation, method: str, request: Any, stopping: threading.Event) -> None:
        if not operation.kind.startswith("resolve") and not request.request_id:
            request.request_id = new_request_id()
        operation = replace(operation, request_id=getattr(request, "request_id", ""), called=time.monotonic_ns())
        done = self._answer(operation, method, request, stopping)
        self.operations.append(done)
        self._learn(done)
        if operation.request_id and (done.moved or done.outcome == UNKNOWN):
            self._asked.append((operation, method, request))

    def _learn(self, done: Operation) -> None:
        """Remember what an answer says."""
        for assigned in done.told:
            if done.kind not in {"resolve as of", "resolve at time"}:
                self._known[assigned.target] = assigned
            if done.moved and assigned.revision == done.position and assigned.model == self._targets[0].model:
                self._ledger.add("history", f"{assigned.revision}@{assigned.alias}", "registry", assigned.revision)
        if done.time:
            self._times.append(done.time)
        if done.position:
            self._seen.append(done.position)
            for client in self._clients:
                client.connection.note_position("registry", done.position)

    def _answer(self, operation: Operation, method: str, request: Any, stopping: threading.Event) -> Operation:
        """Return the operation with its outcome."""
        answer = send(
            lambda: self._client,
            lambda client: getattr(client.connection.registry, method),
            request,
            self._dice,
            stopping,
        )
        if answer.outcome == UNKNOWN:
            self.stuck = str(answer.error) if answer.reason == FAILED else self.stuck
            return operation
        if answer.error is not None:
            current = _current(answer.error)
            return replace(
                operation, returned=answer.returned, outcome=answer.outcome, reason=answer.reason, told=current
            )
        if operation.kind == "schedule":
            return operation
        return replace(
            operation,
            returned=answer.returned,
            outcome=OK,
            told=_RESULTS[method](operation, answer.response),
            position=answer.response.position,
            moved=bool(operation.request_id) and _moved(answer.response),
            time=_moved_at(answer.response),
        )


def _moved_at(response: Any) -> int:
    """Return when the assignment in a response was made; 0 without one."""
    if isinstance(response, (v1.MoveAliasResponse, v1.ResolveAliasResponse)):
        return int(response.alias.moved_at.ToNanoseconds())
    return 0


def _moved(response: Any) -> bool:
    """Return whether a command's response says that it changed something."""
    match response:
        case v1.MoveAliasResponse():
            return response.moved
        case v1.MoveAliasesResponse() | v1.RollbackResponse():
            return response.revision > 0
        case _:
            return True


def _current(error: RollforwardError) -> tuple[Assignment, ...]:
    current = error.current if isinstance(error, Conflict) else None
    return (_assignment(current),) if current is not None else ()


def _assignment(alias: v1.Alias) -> Assignment:
    return Assignment(alias.model, alias.alias, alias.version, alias.revision)


_RESULTS: dict[str, Callable[[Operation, Any], tuple[Assignment, ...]]] = {
    "MoveAlias": lambda _, response: (_assignment(response.alias),),
    "ScheduleMove": lambda *_: (),
    "ResolveAlias": lambda _, response: (_assignment(response.alias),),
    "MoveAliases": lambda _, response: tuple(_assignment(alias) for alias in response.aliases),
    "RemoveAlias": lambda asked, response: (Assignment(*asked.wanted[0].target, 0, response.position),),
    "Rollback": lambda _, response: tuple(
        Assignment(change.model, change.alias, change.to_version, response.revision)
        for change in response.changes
        if not change.skipped and response.revision
    ),
}
