"""Connecting to NATS: some servers are down, or all, or credentials are wrong."""

from __future__ import annotations

import pytest
from nats.errors import Error as NatsError

from eventstore.errors import StoreUnavailable
from eventstore.jetstream import connect, connection
from services.nats.server import NatsAddress
from tests.servers.ports import free_port
from tests.timeouts import LIMIT


async def test_one_reachable_server_is_enough(nats_address: NatsAddress) -> None:
    urls = [f"nats://127.0.0.1:{free_port()}", nats_address.url, f"nats://127.0.0.1:{free_port()}"]
    for _ in range(3):
        client = await connect(" , ".join(urls), nats_address.user, nats_address.password)
        assert client.is_connected
        await client.close()
        urls.append(urls.pop(0))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("nats://127.0.0.1:1", "connection refused"),
        ("nats://me:secret@127.0.0.1:1,nats://127.0.0.1:2", "connection refused"),
        ("nats://no-such-host.invalid:4222", "Is a server running there?"),
        ("nats://127.0.0.1:port", "Expected nats://HOST:PORT"),
        ("nats://127.0.0.1:1,ws://127.0.0.1:2", "Expected nats://HOST:PORT"),
    ],
)
async def test_error_tells_why_no_server_is_reachable(url: str, fault: str) -> None:
    seconds, message = 0.5, ""
    while fault not in message and seconds < LIMIT:  # a busy machine may not refuse the first attempt in time
        with pytest.raises(StoreUnavailable) as caught:
            await connect(url, timeout_seconds=seconds)
        assert caught.value.reason == "LOG_UNAVAILABLE"
        message = str(caught.value)
        seconds *= 2
    assert message.startswith("cannot connect to NATS at nats://")
    assert fault in message
    assert "secret" not in message


@pytest.mark.parametrize("several", [False, True])
async def test_error_tells_how_to_fix_credentials(nats_address: NatsAddress, several: bool) -> None:
    url = f"{nats_address.url},{nats_address.url}" if several else nats_address.url
    with pytest.raises(StoreUnavailable) as caught:
        await connect(url, nats_address.user, "wrong")
    assert "authorization failed" in str(caught.value)
    assert "ROLLFORWARD_NATS_PASSWORD" in str(caught.value)


async def test_authorization_error_is_reported_despite_connection_reset() -> None:
    errors = connection._Errors()
    await errors.note(NatsError("nats: 'Authorization Violation'"))
    await errors.note(ConnectionResetError(104, "Connection reset by peer"))
    assert "authorization failed" in connection._cannot_connect("nats://host", errors.refusal)


async def test_connection_that_breaks_while_closing_is_closed(
    nats_address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    transport = client._transport
    assert transport is not None

    def broken(_lines: object) -> None:
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(transport, "writelines", broken)
    client._pending.append(b"PUB never 4\r\nsent\r\n")
    client._pending_data_size = 20
    await client.close()
    assert client.is_closed
    assert transport._io_writer.is_closing()  # type: ignore[attr-defined]
