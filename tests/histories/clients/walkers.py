"""A reader of listings, page by page, while their entries change."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from rollforward import Client, RollforwardError, v1
from tests.histories.clients.ledger import Ledger
from tests.histories.recorded.subjects import IndexScan

PAUSES = (0.05, 0.1, 0.2)  # seconds
_SECONDS = 5.0  # of a page

Page = Callable[[Client, str], tuple[Sequence[str], str]]
"""The entries of a page and the token of the next one, by a page's token."""


class Walker:
    """A reader of listings: models by prefix, runs of an experiment, the history of a model's aliases."""

    def __init__(
        self, name: str, addresses: Sequence[str], ledger: Ledger, model: str, experiment: str, dice: random.Random
    ) -> None:
        self.walks: list[IndexScan] = []
        self._clients = [Client(address, actor=f"{name}-walker") for address in addresses]
        self._ledger, self._dice = ledger, dice
        self._pages: Mapping[str, Page] = {
            "models": _models(f"{name}-n"),
            "runs": _runs(experiment),
            "history": _history(model),
        }

    def close(self) -> None:
        """Close its connections."""
        for client in self._clients:
            client.close()

    def work(self, stopping: threading.Event) -> None:
        """Read one listing after another until stopped."""
        while not stopping.wait(self._dice.choice(PAUSES)):
            self._walk(self._dice.choice(list(self._pages)))

    def walk_all(self) -> None:
        """Read every listing once at every address."""
        for client in self._clients:
            for listing in self._pages:
                self._walk(listing, client)

    def _walk(self, listing: str, client: Client | None = None) -> None:
        client = client or self._dice.choice(self._clients)
        known, positions = self._ledger.known(listing)
        for log, position in positions.items():
            client.connection.note_position(log, position)
        entries, token, called = list[str](), "", time.monotonic_ns()
        while True:
            try:
                page, token = self._pages[listing](client, token)
            except RollforwardError:
                return  # unreachable: this scan is discarded
            entries += page
            if not token:
                break
        self.walks.append(IndexScan(listing, called, time.monotonic_ns(), tuple(entries), known))


def _models(prefix: str) -> Page:
    def page(client: Client, token: str) -> tuple[Sequence[str], str]:
        request = v1.ListModelsRequest(page_size=3, page_token=token, filter=f"name LIKE '{prefix}%'")
        found = client.connection.call(client.connection.registry.ListModels, request, timeout=_SECONDS)
        return [model.name for model in found.models], found.next_page_token

    return page


def _runs(experiment: str) -> Page:
    def page(client: Client, token: str) -> tuple[Sequence[str], str]:
        request = v1.ListRunsRequest(experiment_id=experiment, page_size=2, page_token=token)
        found = client.connection.call(client.connection.tracking.ListRuns, request, timeout=_SECONDS)
        return [run.run_id for run in found.runs], found.next_page_token

    return page


def _history(model: str) -> Page:
    def page(client: Client, token: str) -> tuple[Sequence[str], str]:
        request = v1.ListAliasHistoryRequest(model=model, page_size=20, page_token=token)
        found = client.connection.call(client.connection.registry.ListAliasHistory, request, timeout=_SECONDS)
        return [f"{change.revision}@{change.alias}" for change in found.changes], found.next_page_token

    return page
