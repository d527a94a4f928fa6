"""Many callers at once write several events each: none fails, and each is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import grpc
import pytest

from rollforward import v1
from tests.integration.up import ACTOR, SECONDS, Q, R, Up, new_id

pytestmark = pytest.mark.busy

CALLERS = 256
PATIENCE = 4 * SECONDS


@pytest.fixture(scope="module")
def registry(system: Up) -> Iterator[v1.RegistryServiceStub]:
    """A stub whose calls do not wait for each other."""
    with grpc.insecure_channel(system.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield v1.RegistryServiceStub(channel)


@pytest.fixture(scope="module")
def models(system: Up) -> list[str]:
    """A model of two versions for each caller."""
    digest, names = system.upload(), [f"many-{new_id()}" for _ in range(CALLERS)]
    with grpc.insecure_channel(system.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = v1.RegistryServiceStub(channel)
        for _ in range(2):
            at_once(stub.RegisterVersion, [v1.RegisterVersionRequest(model=name, digest=digest) for name in names])
    return names


def at_once(method: grpc.UnaryUnaryMultiCallable[Q, R], requests: Sequence[Q]) -> list[R]:
    """The answers of calls that are all under way at the same time; raises when one fails."""
    calls = [method.future(request, metadata=ACTOR, timeout=PATIENCE) for request in requests]
    return [call.result() for call in calls]


def behind(system: Up) -> tuple[tuple[str, str], ...]:
    """Has a query read all that was written."""
    return (("rollforward-min-position", f"registry={system.heads()['registry']}"),)


def changes(system: Up, models: Sequence[str], alias: str) -> Counter[str]:
    """How often an alias of each model was changed, by the history."""
    request = v1.ListAliasHistoryRequest(alias=alias, page_size=1000)
    answer = system.registry.ListAliasHistory(request, metadata=behind(system), timeout=SECONDS)
    assert not answer.next_page_token
    return Counter(change.model for change in answer.changes if change.model in models)


def test_models_are_created(system: Up, registry: v1.RegistryServiceStub) -> None:
    digest, names = system.upload(), [f"created-{new_id()}" for _ in range(CALLERS)]
    requests = [v1.RegisterVersionRequest(model=name, digest=digest, request_id=new_id()) for name in names]
    # Each is sent twice, as by a client that tries again: it is one request.
    answers = at_once(registry.RegisterVersion, [*requests, *requests])
    assert [answer.version.version for answer in answers] == [1] * 2 * CALLERS
    for name in names[:: CALLERS // 8]:
        found = system.registry.GetModel(v1.GetModelRequest(name=name), metadata=behind(system), timeout=SECONDS)
        assert found.model.latest_version == 1


def test_release_sets_of_their_own_are_moved(system: Up, registry: v1.RegistryServiceStub, models: list[str]) -> None:
    alias = f"own-{new_id()}"
    requests = [
        v1.MoveAliasesRequest(
            targets=[v1.AliasTarget(model=name, alias=alias, version=1) for name in models[number : number + 2]],
            request_id=new_id(),
        )
        for number in range(0, CALLERS, 2)
    ]
    at_once(registry.MoveAliases, [*requests, *requests])
    assert changes(system, models, alias) == Counter(dict.fromkeys(models, 1))


def test_release_sets_of_the_same_models_are_moved_one_after_the_other(
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
    answers = at_once(registry.MoveAliases, requests)
    revisions = [answer.revision for answer in answers if answer.revision]
    assert len(set(revisions)) == len(revisions)
    assert changes(system, models, alias) == Counter(dict.fromkeys(models[:3], len(revisions)))


def test_rollbacks_of_many_are_made(system: Up, registry: v1.RegistryServiceStub, models: list[str]) -> None:
    alias = f"back-{new_id()}"
    for version in (1, 2):
        targets = [v1.AliasTarget(model=name, alias=alias, version=version) for name in models]
        system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=PATIENCE)
    requests = [v1.RollbackRequest(models=name, aliases=alias, request_id=new_id()) for name in models]
    at_once(registry.Rollback, requests)
    assert changes(system, models, alias) == Counter(dict.fromkeys(models, 3))
