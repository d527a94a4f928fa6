"""How a connection to NATS begins: several servers of which some are down, and what is said when there is none."""

from __future__ import annotations

import pytest
from nats.errors import Error as NatsError

from eventstore.errors import StoreUnavailable
from eventstore.jetstream import connect, connection
from services.nats.server import NatsAddress
from tests.servers.ports import free_port
from tests.timeouts import LIMIT


async def test_one_server_that_answers_is_enough(nats_address: NatsAddress) -> None:
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
async def test_why_no_server_answers_is_told(url: str, fault: str) -> None:
    seconds, said = 0.5, ""
    while fault not in said and seconds < LIMIT:  # on a busy machine the first attempt may not even be refused in time
        with pytest.raises(StoreUnavailable) as caught:
            await connect(url, timeout_seconds=seconds)
        assert caught.value.reason == "LOG_UNAVAILABLE"
        said = str(caught.value)
        seconds *= 2
    assert said.startswith("cannot connect to NATS at nats://")
    assert fault in said
    assert "secret" not in said


@pytest.mark.parametrize("several", [False, True])
async def test_refused_credentials_are_told_with_the_way_out(nats_address: NatsAddress, several: bool) -> None:
    url = f"{nats_address.url},{nats_address.url}" if several else nats_address.url
    with pytest.raises(StoreUnavailable) as caught:
        await connect(url, nats_address.user, "wrong")
    assert "authorization failed" in str(caught.value)
    assert "ROLLFORWARD_NATS_PASSWORD" in str(caught.value)


async def test_a_refusal_is_told_although_the_server_resets_the_connection_then() -> None:
    errors = connection._Errors()
    await errors.note(NatsError("nats: 'Authorization Violation'"))
    await errors.note(ConnectionResetError(104, "Connection reset by peer"))
    assert "authorization failed" in connection._cannot_connect("nats://host", errors.refusal)


async def test_a_connection_that_broke_as_it_was_closed_is_closed(
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
