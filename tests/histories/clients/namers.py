"""Clients that create, rename and register models, two competing for each name, and record the results."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rollforward import Client, new_request_id, v1
from tests.histories.clients.ledger import Ledger
from tests.histories.clients.requests import FAILED, send
from tests.histories.recorded.recording import OK, Naming

KINDS = {"create": 3, "rename": 4, "register": 3}
METHODS = {"create": "CreateModel", "rename": "RenameModel", "register": "RegisterVersion"}
PAUSES = (0.0, 0.0, 0.01)


class Names:
    """The names of one history: a new one for every two that are drawn, by whichever clients."""

    def __init__(self, history: str) -> None:
        self._history = history
        self._drawn = itertools.count()

    def draw(self) -> str:
        """Return a name that another client uses, or will."""
        return f"{self._history}-n{next(self._drawn) // 2}"


class Namer:
    """A client that sends one request after another to any registry, with models that it has named."""

    def __init__(
        self, name: str, addresses: Sequence[str], names: Names, digest: str, ledger: Ledger, dice: random.Random
    ) -> None:
        self.namings: list[Naming] = []
        self.stuck = ""
        self._name, self._names, self._digest, self._dice = name, names, digest, dice
        self._ledger = ledger
        self._clients = [Client(address, actor=name) for address in addresses]
        self._own: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def work(self, stopping: threading.Event) -> None:
        """Send requests until it is told to stop."""
        while not stopping.wait(self._dice.choice(PAUSES)):
            (kind,) = self._dice.choices(list(KINDS), list(KINDS.values()))
            naming = self._draw(kind)
            done = self._sent(replace(naming, called=time.monotonic_ns()), stopping)
            self.namings.append(done)
            if done.outcome == OK:
                self._own = [*self._own, naming.to_name or naming.name][-4:]
                self._ledger.add("models", naming.to_name or naming.name, "registry", done.position)

    def _draw(self, kind: str) -> Naming:
        name = self._names.draw()
        if kind == "rename" and self._own:
            return Naming(self._name, kind, self._dice.choice(self._own), name, new_request_id())
        return Naming(self._name, "create" if kind == "rename" else kind, name, "", new_request_id())

    def _request(self, naming: Naming) -> Any:
        if naming.kind == "create":
            return v1.CreateModelRequest(name=naming.name, request_id=naming.request_id)
        if naming.kind == "rename":
            return v1.RenameModelRequest(model=naming.name, new_name=naming.to_name, request_id=naming.request_id)
        return v1.RegisterVersionRequest(model=naming.name, digest=self._digest, request_id=naming.request_id)

    def _sent(self, naming: Naming, stopping: threading.Event) -> Naming:
        request, method = self._request(naming), METHODS[naming.kind]
        answer = send(
            lambda: self._dice.choice(self._clients),
            lambda client: getattr(client.connection.registry, method),
            request,
            self._dice,
            stopping,
        )
        if answer.reason == FAILED:
            self.stuck = str(answer.error)
        done = replace(naming, returned=answer.returned, outcome=answer.outcome)
        if answer.outcome != OK:
            return replace(done, reason="" if answer.returned is None else answer.reason)
        version = answer.response.version.version if naming.kind == "register" else 0
        return replace(done, version=version, position=answer.response.position)
