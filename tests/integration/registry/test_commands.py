"""Repeated and racing registry commands: each runs once, and every race has one winner."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from rollforward import v1
from rollforward.errors import (
    Conflict,
    InvalidRequest,
    RollforwardError,
    from_rpc_error,
)
from tests.integration.up import ACTOR, SECONDS, Up, new_id


class TestRequestIds:
    def test_repeated_request_returns_first_response(self, system: Up, model: str) -> None:
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        first = system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
        system.move(model, 2)
        head = system.heads()["registry"]
        assert system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS) == first
        assert system.heads()["registry"] == head

    def test_any_command_can_be_repeated(self, system: Up) -> None:
        name, alias, registry = f"model-{new_id()}", "champion", system.registry
        digest = system.upload()
        commands: list[tuple[grpc.UnaryUnaryMultiCallable, object]] = [  # type: ignore[type-arg]
            (registry.CreateModel, v1.CreateModelRequest(name=name, request_id=new_id(), registration_gate="true")),
            (registry.SetRegistrationGate, v1.SetRegistrationGateRequest(model=name, request_id=new_id())),
            (registry.RegisterVersion, v1.RegisterVersionRequest(model=name, digest=digest, request_id=new_id())),
            (registry.RegisterVersion, v1.RegisterVersionRequest(model=name, digest=digest, request_id=new_id())),
            (registry.MoveAlias, v1.MoveAliasRequest(model=name, alias=alias, version=1, request_id=new_id())),
            (registry.MoveAlias, v1.MoveAliasRequest(model=name, alias=alias, version=2, request_id=new_id())),
            (registry.Rollback, v1.RollbackRequest(models=name, aliases=alias, request_id=new_id())),
            (registry.RemoveAlias, v1.RemoveAliasRequest(model=name, alias=alias, request_id=new_id())),
        ]
        for method, command in commands:
            first = method(command, timeout=SECONDS)
            head = system.heads()["registry"]
            assert method(command, timeout=SECONDS) == first
            assert system.heads()["registry"] == head

    def test_repetition_ignores_condition_changed_by_first_request(self, system: Up) -> None:
        name, registry = system.new_model(), system.registry
        moved = [system.move(name, version).alias.revision for version in (1, 2)]
        dry_run = v1.RollbackRequest(models=name, aliases="*", dry_run=True)
        seen = registry.Rollback(dry_run, timeout=SECONDS).computed_at
        scope = {"models": name, "aliases": "champion"}
        by_position = v1.RollbackRequest(**scope, expected_position=seen, request_id=new_id())  # type: ignore[arg-type]
        first = registry.Rollback(by_position, timeout=SECONDS)
        assert registry.Rollback(by_position, timeout=SECONDS).revision == first.revision > moved[-1]
        by_revision = v1.RollbackRequest(
            **scope,  # type: ignore[arg-type]
            expected_revision=first.revision,
            request_id=new_id(),
        )
        second = registry.Rollback(by_revision, timeout=SECONDS)
        assert registry.Rollback(by_revision, timeout=SECONDS).revision == second.revision > first.revision

    def test_request_id_with_other_body_is_rejected(self, system: Up, model: str) -> None:
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
        request.version = 2
        error = system.refused(system.registry.MoveAlias, request, ACTOR)
        assert (type(error), error.reason) == (InvalidRequest, "REQUEST_ID_REUSED")
        other = v1.RemoveAliasRequest(model=model, alias="champion", request_id=request.request_id)
        assert system.refused(system.registry.RemoveAlias, other, ACTOR).reason == "REQUEST_ID_REUSED"

    def test_actors_do_not_share_request_ids(self, system: Up, model: str) -> None:
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
        request.version = 2
        response = system.registry.MoveAlias(request, metadata=(("rollforward-actor", "Ada"),), timeout=SECONDS)
        assert (response.moved, response.alias.actor) == (True, "Ada")

    def test_concurrent_repetitions_run_once(self, system: Up, model: str) -> None:
        head = system.heads()["registry"]
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda _: system.registry.MoveAlias(request, timeout=SECONDS), range(8)))
        assert all(response == responses[0] for response in responses)
        assert system.heads()["registry"] == head + 1


def test_one_of_clients_with_same_expected_revision_wins(system: Up, model: str) -> None:
    system.registry.RegisterVersion(v1.RegisterVersionRequest(model=model, digest=system.upload()), timeout=SECONDS)
    revision = system.move(model, 1).alias.revision
    start = threading.Barrier(6)

    def race(number: int) -> v1.MoveAliasResponse | RollforwardError:
        request = v1.MoveAliasRequest(
            model=model, alias="champion", version=2 + number % 2, expected_revision=revision, reason=str(number)
        )
        start.wait()
        try:
            return system.registry.MoveAlias(request, metadata=(("rollforward-actor", f"a{number}"),), timeout=SECONDS)
        except grpc.RpcError as error:
            return from_rpc_error(error)

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(race, range(6)))
    winners = [result for result in outcomes if isinstance(result, v1.MoveAliasResponse)]
    losers = [result for result in outcomes if isinstance(result, Conflict)]
    assert (len(winners), len(losers)) == (1, 5)
    assert winners[0].moved
    assert {error.reason for error in losers} == {"WRONG_REVISION"}
    assert all(error.current == winners[0].alias for error in losers)
    now = v1.ResolveAliasRequest(model=model, alias="champion")
    assert system.registry.ResolveAlias(now, timeout=SECONDS).alias == winners[0].alias
