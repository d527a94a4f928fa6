"""Watchers of aliases that record every step, across lost connections and other servers."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import grpc

from rollforward import Client, Watch, v1
from rollforward._transport.channel import ResponseStream, is_retryable
from rollforward.errors import from_rpc_error
from tests.histories.recorded.recording import Assignment, Change, Step, Stream


class Watcher:
    """A watcher that uses the raw method, and reconnects after errors and at random, from its position."""

    def __init__(self, name: str, clients: Sequence[Client], follows: Stream, dice: random.Random) -> None:
        self.streams: list[Stream] = []
        self._name, self._clients, self._dice = name, clients, dice
        self._follows = follows
        self._reached = follows.resumed_at
        self._call: ResponseStream[v1.WatchAliasesResponse] | None = None
        self._ended = threading.Event()

    @property
    def position(self) -> int:
        """Return the position reached."""
        return self._reached or 0

    def work(self) -> None:
        """Follow until stopped."""
        while not self._ended.is_set():
            client = self._dice.choice(self._clients)
            follows = self._follows
            self.streams.append(Stream(self._name, follows.model, follows.alias, self._reached))
            request = v1.WatchAliasesRequest(model=follows.model, alias=follows.alias, from_revision=self._reached)
            # Never waits for a connection: the next attempt may be at another server. The deadline ends a stream of a
            # silent server.
            seconds = self._dice.choice([0.4, 1.5, 6.0])
            call = client.connection.registry.WatchAliases(
                request, timeout=seconds, metadata=client.connection.metadata()
            )
            self._call = call
            if self._ended.is_set():
                call.cancel()
            self._receive(call, steps=self._dice.choice([2, 10, 40]))
            self._ended.wait(self._dice.choice([0.0, 0.02, 0.1]))

    def end(self) -> None:
        """Stop the watch."""
        self._ended.set()
        if self._call is not None:
            self._call.cancel()

    def _receive(self, call: ResponseStream[v1.WatchAliasesResponse], steps: int) -> None:
        try:
            for _, response in zip(range(steps), call, strict=False):
                step = _step(response)
                self.streams[-1].steps.append(step)
                self._reached = max(self._reached or 0, step.position)
        except grpc.RpcError as error:
            if from_rpc_error(error).reason != "DEADLINE_EXCEEDED" and not is_retryable(error):
                raise
        finally:
            call.cancel()


class SdkWatcher:
    """A watcher that uses the SDK, which reconnects by itself."""

    def __init__(self, name: str, client: Client, follows: Stream) -> None:
        self._name, self._follows = name, follows
        self._changes: list[Change] = []
        reference = f"{follows.model}@{follows.alias}" if follows.alias else follows.model
        self._watch: Watch = client.aliases.watch(reference, from_revision=follows.resumed_at)
        self._since = self._watch.position

    @property
    def position(self) -> int:
        """Return the position reached."""
        return self._watch.position

    @property
    def streams(self) -> list[Stream]:
        """Return its only stream."""
        steps = [Step("changes", change.revision, (change,)) for change in self._changes]
        steps.append(Step("bookmark", self._watch.position))
        return [Stream(self._name, self._follows.model, self._follows.alias, self._since, by_sdk=True, steps=steps)]

    def work(self) -> None:
        """Follow until stopped."""
        for change in self._watch:
            self._changes.append(_change(change))

    def end(self) -> None:
        """Stop the watch."""
        self._watch.close()


def _step(response: v1.WatchAliasesResponse) -> Step:
    kind = str(response.WhichOneof("step"))
    changes = tuple(_change(change) for change in response.changes.changes)
    stood = response.snapshot.aliases
    aliases = tuple(Assignment(alias.model, alias.alias, alias.version, alias.revision) for alias in stood)
    return Step(kind, response.position, changes, aliases)


def _change(change: v1.AliasChange) -> Change:
    about = change.model, change.alias, change.from_version, change.to_version
    return Change(change.revision, change.event_id, *about)
