"""Method options in the protos, and how the interceptor uses them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from eventstore import EventTypes
from eventstore.memory import MemoryStore
from rollforward import v1
from rollforward.v1.method_options_pb2 import reads
from services.app import SERVICES
from services.rpc.interceptor import Interceptor
from services.rpc.methods import Sources, methods_of


class StartedSource:
    """A source at the start of its log."""

    name, position, failure = "source", 0, None
    store = MemoryStore("registry", SERVICES["registry"].events or EventTypes([]))

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Return at once."""


def services() -> list[ServiceDescriptor]:
    files = [module.name for module in pkgutil.iter_modules(v1.__path__) if module.name.endswith("_service_pb2")]
    descriptors = [import_module(f"rollforward.v1.{name}").DESCRIPTOR.services_by_name.values() for name in files]
    return [service for of_file in descriptors for service in of_file]


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_every_method_declares_what_it_reads(service: ServiceDescriptor) -> None:
    sources = Sources(rows=[StartedSource()], memory=[StartedSource()])
    assert len(dict(methods_of(service.full_name, sources))) == len(service.methods)
    assert all(method.GetOptions().Extensions[reads] != v1.READS_UNSPECIFIED for method in service.methods)


def test_methods_wait_for_what_they_declare() -> None:
    rows, memory = StartedSource(), StartedSource()
    registry = dict(methods_of("rollforward.v1.RegistryService", Sources(rows=[rows], memory=[memory])))
    assert registry["/rollforward.v1.RegistryService/ListModels"].reads == [rows]
    assert registry["/rollforward.v1.RegistryService/ResolveAlias"].reads == [memory]
    tracking = dict(methods_of("rollforward.v1.TrackingService", Sources(rows=[rows])))
    assert tracking["/rollforward.v1.TrackingService/LogBatch"].reads == ()
    assert tracking["/rollforward.v1.TrackingService/LogBatch"].is_command
    assert not tracking["/rollforward.v1.TrackingService/ListRuns"].is_command


def test_service_without_source_of_method_does_not_start() -> None:
    with pytest.raises(TypeError, match="READS_MEMORY"):
        Interceptor(services={"rollforward.v1.RegistryService": Sources(rows=[StartedSource()])})
    with pytest.raises(TypeError, match="READS_ROWS"):
        Interceptor(services={"rollforward.v1.AuditService": Sources()})


def test_service_with_undeclared_method_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="undeclared.proto", package="undeclared")
    file.message_type.add(name="Nothing")
    file.service.add(name="Service").method.add(
        name="Call", input_type=".undeclared.Nothing", output_type=".undeclared.Nothing"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    monkeypatch.setattr(descriptor_pool, "Default", lambda: pool)
    with pytest.raises(TypeError, match="does not declare"):
        Interceptor(services={"undeclared.Service": Sources()})


def test_service_follows_its_own_log_first() -> None:
    assert {name: list(service.logs) for name, service in SERVICES.items()} == {
        "tracking": ["tracking", "registry"],
        "registry": ["registry", "tracking"],
        "serving": ["serving", "registry"],
        "audit": ["tracking", "registry", "serving", "webhooks"],
        "webhooks": ["webhooks", "registry"],
    }
