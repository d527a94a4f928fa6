"""Registry processes over one NATS, each with rows of its own, and raw watches on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from rollforward import v1
from rollforward.errors import Conflict, from_rpc_error
from services.nats.server import NatsAddress
from tests.e2e.processes import start_service
from tests.e2e.program import Program
from tests.integration.up import SECONDS, Client, Q, R
from tests.servers.nats import running_nats

ALIAS = "champion"


class Registry(Client):
    """A registry process, and a client of it."""

    def __init__(self, program: Program, address: str, tracking: Client) -> None:
        super().__init__(address)
        self.program = program
        self.address = address
        self._tracking = tracking

    def upload(self, data: bytes = b"weights") -> str:
        """Upload an artifact of one file; return its digest."""
        return self._tracking.upload(data)

    def head(self) -> int:
        """Return the last position of the registry log."""
        return self.heads()["registry"]

    def _at_head(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that makes a read wait for the log's head, whichever process wrote it."""
        return (("rollforward-min-position", f"registry={self.head()}"),)

    def watch(self, **fields: Any) -> Any:
        """Watch aliases."""
        request = v1.WatchAliasesRequest(**fields)
        return self.registry.WatchAliases(request, metadata=self._at_head(), timeout=SECONDS * 4)

    def move_set(self, versions: Mapping[str, int], alias: str = ALIAS) -> v1.MoveAliasesResponse:
        """Move an alias of several models at one revision."""
        targets = [v1.AliasTarget(model=model, alias=alias, version=version) for model, version in versions.items()]
        return insist(self.registry.MoveAliases, v1.MoveAliasesRequest(targets=targets))

    def changes(self, after: int, model: str = "", alias: str = "") -> list[v1.AliasChange]:
        """Return the changes in the history after a position, oldest first."""
        found: list[v1.AliasChange] = []
        token, headers = "", self._at_head()
        while True:
            request = v1.ListAliasHistoryRequest(model=model, alias=alias, page_size=500, page_token=token)
            page = self.registry.ListAliasHistory(request, metadata=headers, timeout=SECONDS)
            found += [change for change in page.changes if change.revision > after]
            token = page.next_page_token
            if not token:
                return found[::-1]


class Registries:
    """As many registry processes as are asked for, over one log."""

    def __init__(self, nats: NatsAddress, home: Path, stack: ExitStack) -> None:
        self._nats = nats
        self._home = home
        self._stack = stack
        self._number = 0
        self._tracking = Client(self._start("tracking")[1])
        stack.callback(self._tracking.channel.close)

    def start(self) -> Registry:
        """Start one more process."""
        registry = Registry(*self._start("registry"), self._tracking)
        self._stack.callback(registry.channel.close)
        return registry

    def _start(self, service: str) -> tuple[Program, str]:
        self._number += 1
        program, address = start_service(service, self._home, self._nats, self._number)
        self._stack.callback(program.kill)
        return program, address


@contextmanager
def registries(home: Path) -> Iterator[Registries]:
    """Yield registry processes over a NATS of their own; all end with the `with` block."""
    with running_nats() as nats, ExitStack() as stack:
        yield Registries(nats, home, stack)


def insist(method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
    """Return the response of a command that is retried while others are faster."""
    while True:
        try:
            return method(request, timeout=SECONDS)
        except grpc.RpcError as error:
            if not isinstance(refused := from_rpc_error(error), Conflict):
                raise refused from error


def read(watch: Any, until: int) -> list[v1.WatchAliasesResponse]:
    """Return the steps of a watch up to the one that reaches a position; the watch continues."""
    steps: list[v1.WatchAliasesResponse] = []
    while not steps or steps[-1].position < until:
        steps.append(next(watch))
    return steps


def changes_of(steps: Sequence[v1.WatchAliasesResponse]) -> list[v1.AliasChange]:
    """Return the changes in steps."""
    return [change for step in steps for change in step.changes.changes]


def reason_at_end(watch: Any) -> tuple[list[v1.WatchAliasesResponse], str]:
    """Return all steps of a watch that ends with an error, and the reason."""
    steps = []
    try:
        for step in watch:
            steps.append(step)  # noqa: PERF402 - the steps before the error are wanted
    except grpc.RpcError as error:
        return steps, from_rpc_error(error).reason
    raise AssertionError("not broken off")
