"""Durability warnings: a log reports, from the settings of real servers, when it could lose acknowledged events."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.client import Client
from nats.js import api

from eventstore.codec import EventTypes
from eventstore.errors import StoreUnavailable, UnsafeStore
from eventstore.jetstream import JetStreamStore, connect, store
from eventstore.jetstream.monitoring import UNREAD, FlushQuestion, ask_monitor, ask_system_account, stream_warnings
from eventstore.jetstream.stream_config import DUPLICATE_WINDOW, stream_config
from eventstore.memory import MemoryStore
from services.nats.process import find_nats_server, leashed
from services.nats.server import EmbeddedNats, NatsAddress
from tests.servers.nats import until
from tests.timeouts import scaled

TYPES = EventTypes([StringValue])
SOUND = {
    "discard": api.DiscardPolicy.NEW,
    "storage": api.StorageType.FILE,
    "allow_atomic": True,
    "allow_direct": True,
    "deny_delete": True,
    "deny_purge": True,
    "duplicate_window": DUPLICATE_WINDOW,
}


def flush_query(address: NatsAddress) -> FlushQuestion:
    return ask_system_account(address.url, address.system_user, address.system_password)


@asynccontextmanager
async def connected(address: NatsAddress) -> AsyncIterator[Client]:
    client = await connect(address.url, address.user, address.password)
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def outside_server(home: Path, jetstream: str) -> Iterator[tuple[str, str]]:
    """Run a server with its own configuration; yield its client URL and its monitoring URL."""
    ports = f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{home}"\n'
    (home / "conf").write_text(ports + f'jetstream {{ store_dir: "{home}/store", {jetstream} }}')
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(
            leashed([str(find_nats_server()), "-c", str(home / "conf")]), stdin=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            yield asyncio.run(_urls(home, process.pid))
        finally:
            process.kill()


async def _urls(home: Path, pid: int) -> tuple[str, str]:
    def text() -> str:
        return "".join(path.read_text() for path in home.glob(f"*_{pid}.ports"))

    await until(lambda: text().endswith("}"))
    ports = json.loads(text())
    return ports["nats"][0], ports["monitoring"][0]


async def test_embedded_server_has_no_warnings(nats_address: NatsAddress) -> None:
    async with connected(nats_address) as client:
        log = JetStreamStore(client, "durable", TYPES, flush_query(nats_address))
        await log.open()
        condition = await log.condition()
        assert condition.warnings == ()
        assert condition.storage == "file, 1 replica"
        info = client.connected_server_version
        assert condition.versions == {"nats": f"{info.major}.{info.minor}.{info.patch}"}


async def test_embedded_server_without_sync_always_has_warning(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path, sync_always=False) as server, connected(server.address) as client:
        (flush,) = await flush_query(server.address)()
        assert (flush.always, flush.seconds) == (False, 120.0)
        log = JetStreamStore(client, "t", TYPES, flush_query(server.address))
        await log.open()
        (warning,) = (await log.condition()).warnings
        assert "120 s" in warning


async def test_unreadable_settings_have_warning(nats_address: NatsAddress) -> None:
    async with connected(nats_address) as client:
        await JetStreamStore(client, "unread", TYPES).open()
        assert (await JetStreamStore(client, "unread", TYPES).condition()).warnings == (UNREAD,)
        for query in (
            ask_system_account(nats_address.url, nats_address.system_user, "wrong"),
            ask_system_account(nats_address.url, nats_address.user, nats_address.password),
            ask_monitor("http://127.0.0.1:1"),
        ):
            with pytest.raises(StoreUnavailable) as unavailable:
                await query()
            assert "Error(" not in str(unavailable.value)
            assert len((await JetStreamStore(client, "unread", TYPES, query).condition()).warnings) == 1


async def test_system_user_has_no_access_to_log(nats_address: NatsAddress) -> None:
    client = await connect(nats_address.url, nats_address.system_user, nats_address.system_password)
    try:
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(_read_account(client), scaled(5))
    finally:
        await client.close()


async def _read_account(client: Client) -> None:
    try:
        await client.jetstream().account_info()
    except Exception as error:
        raise StoreUnavailable(repr(error)) from error


@pytest.mark.parametrize(("setting", "warnings"), [("sync_interval: always", 0), ("sync_interval: 10s", 1), ("", 1)])
def test_settings_of_external_server_are_read_from_monitoring_port(tmp_path: Path, setting: str, warnings: int) -> None:
    async def condition(url: str, monitor: str) -> tuple[str, ...]:
        client = await connect(url)
        log = JetStreamStore(client, "t", TYPES, ask_monitor(monitor + "/"))
        await log.open()
        warnings_found = (await log.condition()).warnings
        await client.close()
        return warnings_found

    with outside_server(tmp_path, setting) as urls:
        assert len(asyncio.run(condition(*urls))) == warnings


@pytest.mark.parametrize(
    "weakness",
    [
        {"storage": api.StorageType.MEMORY},
        {"max_age": 600.0},
        {"discard": api.DiscardPolicy.OLD, "max_msgs": 100},
        {"discard": api.DiscardPolicy.OLD, "max_bytes": 10_000_000},
        {"max_msgs_per_subject": 5},
        {"allow_atomic": False},
        {"deny_purge": False},
        {"deny_delete": False},
        {"allow_msg_ttl": True, "deny_purge": False},
        {"duplicate_window": 5.0},
    ],
)
async def test_stream_with_weaker_settings_has_warning(nats_address: NatsAddress, weakness: dict[str, object]) -> None:
    async with connected(nats_address) as client:
        config = api.StreamConfig(name="rf-weak", subjects=["rf.weak.>"], **(SOUND | weakness))  # type: ignore[arg-type]
        await client.jetstream().add_stream(config)
        try:
            log = JetStreamStore(client, "weak", TYPES, flush_query(nats_address))
            await log.open()
            warnings = (await log.condition()).warnings
            assert len(warnings) == len({*weakness} - {"max_msgs", "max_bytes"})
        finally:
            await client.jetstream().delete_stream("rf-weak")


@pytest.mark.parametrize("weakness", [{"allow_direct": False}, {"subjects": ["rf.weak.>", "other.>"]}])
async def test_unsafe_stream_is_refused(nats_address: NatsAddress, weakness: dict[str, object]) -> None:
    async with connected(nats_address) as client:
        settings = {"subjects": ["rf.weak.>"], **SOUND, **weakness}
        await client.jetstream().add_stream(api.StreamConfig(name="rf-weak", **settings))  # type: ignore[arg-type]
        try:
            with pytest.raises(UnsafeStore) as caught:
                await JetStreamStore(client, "weak", TYPES).open()
            assert next(iter(weakness)) in str(caught.value)
        finally:
            await client.jetstream().delete_stream("rf-weak")


async def test_protection_dropped_by_server_is_detected(
    nats_address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nats-server 2.15.1 silently disables deny_purge and enables roll-ups if a stream leaves delete markers.
    def marking_config(log: str, replicas: int, *, erasable: bool) -> api.StreamConfig:
        config = stream_config(log, replicas, erasable=erasable)
        return replace(config, allow_msg_ttl=True, subject_delete_marker_ttl=60.0)

    async with connected(nats_address) as client:
        monkeypatch.setattr(store, "stream_config", marking_config)
        try:
            with pytest.raises(UnsafeStore) as caught:
                await JetStreamStore(client, "marking", TYPES).open()
            assert "deny_purge" in str(caught.value)
            log = JetStreamStore(client, "marking", TYPES, flush_query(nats_address))
            await log.open()
            assert [warning for warning in (await log.condition()).warnings if "deny_purge" in warning]
        finally:
            await client.jetstream().delete_stream("rf-marking")


def test_asynchronous_stream_has_warning() -> None:
    assert stream_warnings(api.StreamConfig(**SOUND)) == []  # type: ignore[arg-type]
    assert stream_warnings(api.StreamConfig(**SOUND, max_msgs=10)) == []  # type: ignore[arg-type]
    assert len(stream_warnings(api.StreamConfig(**SOUND, persist_mode=api.PersistMode.ASYNC))) == 1  # type: ignore[arg-type]


async def test_log_in_memory_has_warning() -> None:
    assert (await MemoryStore("t", TYPES).condition()).warnings
