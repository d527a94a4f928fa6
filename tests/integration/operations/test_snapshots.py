"""Snapshots of a running system: on request and on a schedule, and a start that has lost its rows."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from structlog.testing import capture_logs

from rollforward import v1
from services.app import running
from services.artifacts.objects import open_objects
from services.settings import Settings, from_environment
from tests.servers.nats import until


@asynccontextmanager
async def run_system(data: Path, interval: int = 0) -> AsyncIterator[grpc.aio.Channel]:
    settings = Settings(("registry",), "127.0.0.1:0", data=data, snapshot_interval=interval, snapshot_events=1)
    async with running(settings) as process, grpc.aio.insecure_channel(process.grpc) as channel:
        yield channel


async def register(channel: grpc.aio.Channel, name: str) -> None:
    request = v1.CreateModelRequest(name=name, request_id=name)
    await v1.RegistryServiceStub(channel).CreateModel(request)


async def model_names(channel: grpc.aio.Channel) -> list[str]:
    response = await v1.RegistryServiceStub(channel).ListModels(v1.ListModelsRequest())
    return sorted(model.name for model in response.models)


async def take_snapshot(channel: grpc.aio.Channel, name: str) -> v1.CreateSnapshotResponse:
    stub = v1.SystemServiceStub(channel)
    return [step async for step in stub.CreateSnapshot(v1.CreateSnapshotRequest(name=name))][-1]


async def test_start_without_rows_restores_snapshot(tmp_path: Path) -> None:
    async with run_system(tmp_path) as channel:
        await register(channel, "one")
        taken = await take_snapshot(channel, "registry")
        assert taken.done
        assert taken.position == 1
        assert taken.size_bytes
        await register(channel, "two")
    await asyncio.to_thread(shutil.rmtree, tmp_path / "rows")
    with capture_logs() as lines:
        async with run_system(tmp_path) as channel:
            assert await model_names(channel) == ["one", "two"]
    restored = [line for line in lines if line["event"] == "rows restored from a snapshot"]
    assert [(line["projection"], line["position"]) for line in restored] == [("registry", 1)]


async def test_snapshots_are_taken_on_schedule(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path / "artifacts"))
    async with run_system(tmp_path, interval=1) as channel:
        assert objects.names("snapshots") == []
        await register(channel, "one")
        await until(lambda: bool(objects.names("snapshots/registry")))


async def test_snapshot_of_unknown_projection_is_rejected(tmp_path: Path) -> None:
    async with run_system(tmp_path) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await take_snapshot(channel, "tracking")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_settings_come_from_environment() -> None:
    assert (Settings().snapshot_interval, Settings().snapshot_events) == (600, 10_000)
    settings = from_environment({"ROLLFORWARD_SNAPSHOT_INTERVAL": "0", "ROLLFORWARD_SNAPSHOT_EVENTS": "5"})
    assert (settings.snapshot_interval, settings.snapshot_events) == (0, 5)
