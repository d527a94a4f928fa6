"""Webhooks of a whole system whose parts are killed: every registry change is delivered, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollforward import Client
from tests.e2e.models import write_constant_model
from tests.e2e.processes import Services
from tests.e2e.program import until
from tests.servers.receiver import Receiver, Request

pytestmark = pytest.mark.busy

MODEL = "m"
CHAMPION = "m@champion"


def move_back_and_forth(client: Client, times: int) -> None:
    """Move the champion a number of times."""
    for _ in range(times):
        changes = client.aliases.history(MODEL, limit=1)
        client.aliases.move(CHAMPION, 3 - changes[0].to_version if changes else 1, reason="to and fro")


def delivered_changes(requests: list[Request]) -> list[tuple[int, str, int | None, int]]:
    """Return each delivered change once: revision, id, version before and after."""
    payloads = [request.json["data"] for request in requests]
    return [
        *dict.fromkeys(
            (
                payload["revision"],
                payload["event_id"],
                (payload["from"] or {}).get("version", 0),
                payload["to"]["version"],
            )
            for payload in payloads
        )
    ]


def test_every_move_is_delivered_in_order_despite_kills(tmp_path: Path) -> None:
    with Services(tmp_path / "data") as services, Receiver() as receiver, services.connect("user") as client:
        for number in (1, 2):
            client.versions.register(MODEL, path=write_constant_model(tmp_path / f"v{number}", number))
        made = client.webhooks.create(receiver.url, model=MODEL)
        move_back_and_forth(client, 10)
        services.kill_nats()
        move_back_and_forth(client, 10)
        services.kill()
        services.start()
        move_back_and_forth(client, 10)
        receiver.stop()
        move_back_and_forth(client, 10)
        assert services.stop() == 0
        receiver.start()
        services.start()
        moves = [
            (change.revision, change.event_id, change.from_version, change.to_version)
            for change in client.aliases.history(MODEL)[::-1]
        ]
        assert len(moves) == 40
        until(lambda: delivered_changes(receiver.taken) == moves, "every move is told, in order")
        until(lambda: client.webhooks.get(made.webhook.webhook_id).cursor == moves[-1][0], "all is known")
        for request in receiver.taken[-10:]:
            request.verify(made.secret)
        assert services.stop() == 0
        assert "webhook failed" not in services.program.errors
