"""The methods of gRPC services: what each reads and whether it is a command, as the protos declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from rollforward import v1
from rollforward.v1.method_options_pb2 import reads
from services.rpc.positions import Follows


@dataclass(frozen=True, slots=True)
class Sources:
    """The state that the results of a gRPC service come from.

    Attributes:
        rows: Projections; the first is of the log that the service's commands write to.
        memory: State in memory.
    """

    rows: Sequence[Follows] = ()
    memory: Sequence[Follows] = ()

    @property
    def of_commands(self) -> Sequence[Follows]:
        """The sources that must work to accept a command: its result and repeats are read from them."""
        return (*self.rows[:1], *self.memory)


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a gRPC service.

    Attributes:
        service: The service's name without its package.
        name: The method's name.
        is_command: Whether it writes events.
        reads: What a call waits for, until it has reached the positions that the caller asks for.
        sources: All sources of its service.
    """

    service: str
    name: str
    is_command: bool
    reads: Sequence[Follows]
    sources: Sources


def methods_of(service: str, sources: Sources) -> Iterator[tuple[str, Method]]:
    """Yield the methods of a service, by their paths in gRPC.

    Args:
        service: The service's full name.
        sources: What its results come from.

    Raises:
        TypeError: A method does not declare what it reads, or reads what the service does not have.
        KeyError: No proto has such a service.
    """
    for descriptor in descriptor_pool.Default().FindServiceByName(service).methods:
        method = _method(descriptor, sources)
        if not method.reads and _reads(descriptor) != v1.READS_NOTHING:
            declared = v1.Reads.Name(_reads(descriptor))
            raise TypeError(f"{descriptor.full_name} declares {declared}, but its service has no such source")
        yield path_of(service, descriptor.name), method


def method_without_sources(path: str) -> Method:
    """Return a method of a service without known sources; its calls do not wait."""
    service, _, name = path.removeprefix("/").partition("/")
    return _method(descriptor_pool.Default().FindMethodByName(f"{service}.{name}"), Sources())


def path_of(service: str, method: str) -> str:
    """Return the path of a method in gRPC, from the full name of its service and its own name."""
    return f"/{service}/{method}"


def is_command(method: MethodDescriptor) -> bool:
    """Return whether a method writes events: its request has a request id, and its response a position."""
    return "request_id" in method.input_type.fields_by_name and "position" in method.output_type.fields_by_name


def _method(descriptor: MethodDescriptor, sources: Sources) -> Method:
    by_declaration: Mapping[v1.Reads.ValueType, Sequence[Follows]] = {
        v1.READS_ROWS: sources.rows,
        v1.READS_MEMORY: sources.memory,
        v1.READS_NOTHING: (),
    }
    declared = _reads(descriptor)
    if declared not in by_declaration:
        raise TypeError(f"{descriptor.full_name} does not declare what it reads: add `option (reads) = READS_...;`")
    service = descriptor.containing_service.name
    return Method(service, descriptor.name, is_command(descriptor), by_declaration[declared], sources)


def _reads(descriptor: MethodDescriptor) -> v1.Reads.ValueType:
    return descriptor.GetOptions().Extensions[reads]
