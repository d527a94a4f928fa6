"""Webhooks reach only public addresses, however an address is spelled or a name resolves later."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from eventstore.errors import Rejected
from services.webhooks import allowed_addresses
from services.webhooks.allowed_addresses import check_url, is_public, open_client
from tests.servers.receiver import Receiver

PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::"),
]
SPELLINGS = [
    *("127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]", "[::]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "169.254.169.254", "2852039166", "[fe80::1]"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", SPELLINGS)
async def test_private_url_is_rejected_in_any_spelling(host: str) -> None:
    with pytest.raises(Rejected) as refused:
        await check_url(f"http://{host}:8080/latest")
    assert refused.value.reason == "PRIVATE_ADDRESS"


@pytest.mark.parametrize("url", ["https://8.8.8.8/", "https://nobody.invalid/", "nowhere", "http://[/", "http://a..b/"])
async def test_public_or_unresolvable_url_is_accepted(url: str) -> None:
    await check_url(url)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run an endpoint on this machine, without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Receiver() as running:
        yield running


async def status(url: str, *, allow_private: bool = False) -> int:
    """Send a request and return its status; httpx errors propagate."""
    async with open_client(allow_private=allow_private, user_agent="test", timeout=10.0) as client:
        return (await client.post(url, content=b"{}", headers={"webhook-id": "1"})).status_code


async def test_private_address_is_not_connected_by_default(receiver: Receiver) -> None:
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost"), receiver.url.replace("127.0.0.1", "0")):
        with pytest.raises(httpx.ConnectError, match="webhooks-allow-private"):
            await status(url)
    assert not receiver.requests
    assert await status(receiver.url, allow_private=True) == 204


async def test_name_that_resolves_to_private_address_later_is_not_connected(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr(allowed_addresses, "resolve", rebinding)
    url = receiver.url.replace("127.0.0.1", "rebind.example")
    await check_url(url)
    with pytest.raises(httpx.ConnectError, match=r"rebind\.example has the private address 127\.0\.0\.1"):
        await status(url)
    assert not receiver.requests


async def test_private_address_is_not_requested_through_proxy(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", receiver.url)
    with pytest.raises(httpx.ConnectError, match="webhooks-allow-private"):
        await status("http://169.254.169.254/latest")
    assert not receiver.requests
    assert await status("http://8.8.8.8/hook") == 204
    assert receiver.requests


async def test_address_exempt_from_proxy_is_checked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "hooks.example, 127.0.0.1")
    assert await status(receiver.url, allow_private=True) == 204
    with pytest.raises(httpx.ConnectError, match="webhooks-allow-private"):
        await status(receiver.url)
