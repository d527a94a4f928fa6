"""A log replicated on three servers, one of which is lost and stays away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eventstore.jetstream import JetStreamStore, connect
from tests.contract.store.events import TYPES, new
from tests.contract.store.stores import take
from tests.histories.systems.cluster import SERVERS, Cluster
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

SUBSCRIPTIONS = 12
"""Each is placed on a random server; with 12, a server without a consumer is improbable."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.mark.timeout(scaled(120))
async def test_subscriptions_continue_when_the_server_of_their_consumer_is_lost(cluster: Cluster) -> None:
    client = await connect(cluster.url, timeout_seconds=scaled(30))
    try:
        log = JetStreamStore(client, "t", TYPES)
        await log.open(replicas=SERVERS)
        js = client.jetstream(timeout=scaled(10))
        subscriptions = [asyncio.create_task(take(log, 1, seconds=scaled(90))) for _ in range(SUBSCRIPTIONS)]
        while len(consumers := await js.consumers_info("rf-t")) < SUBSCRIPTIONS:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.1)
        hosts = {int(consumer.cluster.leader or -1) for consumer in consumers if consumer.cluster}
        # The connection stays up: the subscriptions notice the loss only because nothing arrives.
        lost = next(number for number in sorted(hosts) if number != cluster.number(client))
        cluster.servers[lost].kill()
        (position,) = await log.append([new("s")])
        for batches in await asyncio.gather(*subscriptions):
            assert batches[0][0].position == position
    finally:
        await client.close()
