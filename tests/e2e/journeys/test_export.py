"""An export across outages: complete, in order, without duplicates, and as of its beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollforward import v1
from tests.e2e.processes import Services
from tests.integration.up import SECONDS, Client

# Far more than gRPC takes in before it is asked for.
LARGE_EVENTS = 60
EVENT_BYTES = 400_000


def large(turn: int) -> dict[str, str]:
    """Return tags that fill an event, other ones for each turn."""
    return {str(key): f"{turn}.{key}".ljust(5_000, "x") for key in range(EVENT_BYTES // 10_000)}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Yield all services; the logs of the registry and of tracking have many large events."""
    with Services(tmp_path / "data") as running:
        client = Client(running.address)
        client.registry.CreateModel(v1.CreateModelRequest(name="m"), timeout=SECONDS)
        run_id = client.new_run()
        for turn in range(LARGE_EVENTS):
            client.registry.ChangeTags(v1.ChangeTagsRequest(model="m", set=large(turn)), timeout=SECONDS)
            client.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, tags=large(turn)), timeout=SECONDS)
        client.channel.close()
        yield running


def killed(services: Services) -> None:
    """Kill the services and start them again."""
    services.kill()
    services.start()


def stopped(services: Services) -> None:
    """Stop the services gracefully and start them again."""
    assert services.stop() == 0
    services.start()


def logged_positions(services: Services) -> list[tuple[str, int]]:
    """Return the log and position of each event, in the order of an export."""
    client = Client(services.address)
    heads = client.heads()
    client.channel.close()
    return [(log, position) for log in sorted(heads) for position in range(1, heads[log] + 1)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("outage", [killed, stopped])
def test_export_continues_after_outage(services: Services, outage: Callable[[Services], None]) -> None:
    with services.connect("reader") as reader, services.connect("writer") as writer:
        before = logged_positions(services)
        export = reader.audit.export()
        found = [next(export)]
        for log in ("registry", "tracking"):
            while found[-1].log != log:
                found.append(next(export))
            outage(services)
            writer.models.create(f"after-{log}")
        found += export
        assert [(event.log, event.position) for event in found] == before
        assert len(logged_positions(services)) == len(before) + 2
