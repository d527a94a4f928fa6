"""Webhooks of both systems to a receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from benchmarks.harness.contract import Endpoint
from benchmarks.harness.receiver import Receiver
from benchmarks.systems.mlflow import WEBHOOK_LIST_SECONDS, HttpClient
from rollforward import v1


class HookFollowers:
    """A receiver of a number of webhooks."""

    def __init__(self, receiver: Receiver, count: int) -> None:
        self._receiver = receiver
        self._count = count

    def received_at(self, seconds: float) -> list[float]:
        """Return when each webhook delivered the next change (time.perf_counter). Raises TimeoutError."""
        if not self._receiver.wait_for(self._count, seconds):
            raise TimeoutError
        times = [one.time for one in self._receiver.accepted()]
        self._receiver.clear()
        return times


def moved_to(body: Any) -> int:
    """Return the version that an alias was moved to, from the request body of either system."""
    data = body["data"]
    return int(data["to"]["version"] if "to" in data else data["version"])


@contextmanager
def webhooks(endpoint: Endpoint, model: str, receiver: Receiver, count: int = 1) -> Iterator[None]:
    """Create webhooks for the moves of a model's aliases, wait until they are active, and delete them at the end."""
    kinds = {"rollforward": _ours, "mlflow": _mlflow}
    with kinds[endpoint.kind](endpoint, model, [f"{receiver.url}/{number}" for number in range(count)]):
        yield


@contextmanager
def _ours(endpoint: Endpoint, model: str, urls: list[str]) -> Iterator[None]:
    with grpc.insecure_channel(endpoint.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = v1.WebhookServiceStub(channel)
        made = [stub.CreateWebhook(v1.CreateWebhookRequest(url=url, model=model)).webhook.webhook_id for url in urls]
        try:
            yield
        finally:
            for webhook_id in made:
                stub.DeleteWebhook(v1.DeleteWebhookRequest(webhook_id=webhook_id))


@contextmanager
def _mlflow(endpoint: Endpoint, model: str, urls: list[str]) -> Iterator[None]:
    del model  # its webhooks hear of all
    client = HttpClient(endpoint.quickened())
    event = {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}
    made = [
        client.post("webhooks", {"name": f"bench-{number}", "url": url, "events": [event]})["webhook"]["webhook_id"]
        for number, url in enumerate(urls)
    ]
    time.sleep(2 * WEBHOOK_LIST_SECONDS)  # every worker has forgotten by then that there were none
    try:
        yield
    finally:
        for webhook_id in made:
            client.delete(f"webhooks/{webhook_id}")
        client.close()
