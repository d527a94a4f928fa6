"""Many concurrent callers write several events each: none fails, and each command runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import grpc
import pytest

from rollforward import v1
from tests.integration.up import ACTOR, SECONDS, Q, R, Up, new_id

pytestmark = pytest.mark.busy

CALLERS = 256
TIMEOUT = 4 * SECONDS


@pytest.fixture(scope="module")
def registry(system: Up) -> Iterator[v1.RegistryServiceStub]:
    """Return a stub whose calls do not wait for each other."""
    with grpc.insecure_channel(system.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield v1.RegistryServiceStub(channel)


@pytest.fixture(scope="module")
def models(system: Up) -> list[str]:
    """Create a model of two versions for each caller."""
    digest, names = system.upload(), [f"many-{new_id()}" for _ in range(CALLERS)]
    with grpc.insecure_channel(system.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = v1.RegistryServiceStub(channel)
        for _ in range(2):
            call_concurrently(
                stub.RegisterVersion, [v1.RegisterVersionRequest(model=name, digest=digest) for name in names]
            )
    return names


def call_concurrently(method: grpc.UnaryUnaryMultiCallable[Q, R], requests: Sequence[Q]) -> list[R]:
    """Make all calls at the same time and return their responses; raise if one fails."""
    calls = [method.future(request, metadata=ACTOR, timeout=TIMEOUT) for request in requests]
    return [call.result() for call in calls]


def headers_at_head(system: Up) -> tuple[tuple[str, str], ...]:
    """Return the headers of a read that waits for the registry log's head."""
    return (("rollforward-min-position", f"registry={system.heads()['registry']}"),)


def changes(system: Up, models: Sequence[str], alias: str) -> Counter[str]:
    """Count the changes of an alias of each model in the history."""
    request = v1.ListAliasHistoryRequest(alias=alias, page_size=1000)
    response = system.registry.ListAliasHistory(request, metadata=headers_at_head(system), timeout=SECONDS)
    assert not response.next_page_token
    return Counter(change.model for change in response.changes if change.model in models)


def test_concurrent_registrations_create_models(system: Up, registry: v1.RegistryServiceStub) -> None:
    digest, names = system.upload(), [f"created-{new_id()}" for _ in range(CALLERS)]
    requests = [v1.RegisterVersionRequest(model=name, digest=digest, request_id=new_id()) for name in names]
    # Each is sent two times, as by a client that retries: it is one request.
    responses = call_concurrently(registry.RegisterVersion, [*requests, *requests])
    assert [response.version.version for response in responses] == [1] * 2 * CALLERS
    for name in names[:: CALLERS // 8]:
        found = system.registry.GetModel(
            v1.GetModelRequest(name=name), metadata=headers_at_head(system), timeout=SECONDS
        )
        assert found.model.latest_version == 1


def test_disjoint_release_sets_are_moved_concurrently(
    system: Up, registry: v1.RegistryServiceStub, models: list[str]
) -> None:
    alias = f"own-{new_id()}"
    requests = [
        v1.MoveAliasesRequest(
            targets=[v1.AliasTarget(model=name, alias=alias, version=1) for name in models[number : number + 2]],
            request_id=new_id(),
        )
        for number in range(0, CALLERS, 2)
    ]
    call_concurrently(registry.MoveAliases, [*requests, *requests])
    assert changes(system, models, alias) == Counter(dict.fromkeys(models, 1))


def test_release_sets_of_same_models_are_serialized(
    system: Up, registry: v1.RegistryServiceStub, models: list[str]
) -> None:
    alias = f"same-{new_id()}"
    requests = [
        v1.MoveAliasesRequest(
            targets=[v1.AliasTarget(model=name, alias=alias, version=1 + number % 2) for name in models[:3]],
            request_id=new_id(),
        )
        for number in range(CALLERS // 4)
    ]
    responses = call_concurrently(registry.MoveAliases, requests)
    revisions = [response.revision for response in responses if response.revision]
    assert len(set(revisions)) == len(revisions)
    assert changes(system, models, alias) == Counter(dict.fromkeys(models[:3], len(revisions)))


def test_concurrent_rollbacks_are_made(system: Up, registry: v1.RegistryServiceStub, models: list[str]) -> None:
    alias = f"back-{new_id()}"
    for version in (1, 2):
        targets = [v1.AliasTarget(model=name, alias=alias, version=version) for name in models]
        system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=TIMEOUT)
    requests = [v1.RollbackRequest(models=name, aliases=alias, request_id=new_id()) for name in models]
    call_concurrently(registry.Rollback, requests)
    assert changes(system, models, alias) == Counter(dict.fromkeys(models, 3))
