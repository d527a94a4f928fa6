"""Requests that the registry rejects, each with its reason and without an event."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    RollforwardError,
)
from tests.integration.up import SECONDS, Up

NO_DIGEST = f"sha256:{'0' * 64}"

Case = tuple[str, Callable[[str], object], type[RollforwardError], str]
REJECTED: list[Case] = [
    ("CreateModel", lambda m: v1.CreateModelRequest(name=m), AlreadyExists, "MODEL_EXISTS"),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="a/b"), InvalidRequest, "INVALID_NAME"),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="a\0"), InvalidRequest, "INVALID_TEXT"),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="n", registration_gate="1"), InvalidRequest, "INVALID_GATE"),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="n", reason="r" * 4001), InvalidRequest, "INVALID_REASON"),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="n", reason="\x1b"), InvalidRequest, "INVALID_REASON"),
    (
        "CreateModel",
        lambda _: v1.CreateModelRequest(name="n", request_id="i" * 129),
        InvalidRequest,
        "INVALID_REQUEST_ID",
    ),
    (
        "CreateModel",
        lambda _: v1.CreateModelRequest(name="n", description="d" * 20_001),
        InvalidRequest,
        "INVALID_DESCRIPTION",
    ),
    ("CreateModel", lambda _: v1.CreateModelRequest(name="n", tags={"": ""}), InvalidRequest, "INVALID_TAG"),
    ("SetRegistrationGate", lambda m: v1.SetRegistrationGateRequest(model=m + "x"), NotFound, "MODEL_NOT_FOUND"),
    (
        "SetRegistrationGate",
        lambda m: v1.SetRegistrationGateRequest(model=m, expression="x"),
        InvalidRequest,
        "INVALID_GATE",
    ),
    ("GetModel", lambda m: v1.GetModelRequest(name=m + "x"), NotFound, "MODEL_NOT_FOUND"),
    ("ListModels", lambda _: v1.ListModelsRequest(page_token="garbage"), InvalidRequest, "INVALID_PAGE"),
    (
        "RegisterVersion",
        lambda _: v1.RegisterVersionRequest(model="a:b", digest=NO_DIGEST),
        InvalidRequest,
        "INVALID_NAME",
    ),
    ("RegisterVersion", lambda m: v1.RegisterVersionRequest(model=m), InvalidRequest, "INVALID_DIGEST"),
    ("RegisterVersion", lambda m: v1.RegisterVersionRequest(model=m, digest=NO_DIGEST), NotFound, "ARTIFACT_NOT_FOUND"),
    ("RegisterVersion", lambda m: v1.RegisterVersionRequest(model=m, run_id="r"), NotFound, "RUN_NOT_FOUND"),
    ("RegisterVersion", lambda m: v1.RegisterVersionRequest(model=m, run_id="f" * 32), NotFound, "RUN_NOT_FOUND"),
    ("GetVersion", lambda m: v1.GetVersionRequest(model=m, version=3), NotFound, "VERSION_NOT_FOUND"),
    ("GetVersion", lambda m: v1.GetVersionRequest(model=m, version=2**32 - 1), NotFound, "VERSION_NOT_FOUND"),
    ("GetVersion", lambda m: v1.GetVersionRequest(model=m + "x", version=1), NotFound, "MODEL_NOT_FOUND"),
    ("ListVersions", lambda m: v1.ListVersionsRequest(model=m + "x"), NotFound, "MODEL_NOT_FOUND"),
    ("ListVersions", lambda m: v1.ListVersionsRequest(model=m, page_token="WyJhIl0="), InvalidRequest, "INVALID_PAGE"),
    ("MoveAlias", lambda m: v1.MoveAliasRequest(model=m, alias="v1", version=1), InvalidRequest, "INVALID_ALIAS"),
    ("MoveAlias", lambda m: v1.MoveAliasRequest(model=m, alias="latest", version=1), InvalidRequest, "INVALID_ALIAS"),
    ("MoveAlias", lambda m: v1.MoveAliasRequest(model=m, alias="12", version=1), InvalidRequest, "INVALID_ALIAS"),
    ("MoveAlias", lambda m: v1.MoveAliasRequest(model=m, alias="a", version=3), NotFound, "VERSION_NOT_FOUND"),
    ("MoveAlias", lambda m: v1.MoveAliasRequest(model=m + "x", alias="a", version=1), NotFound, "MODEL_NOT_FOUND"),
    (
        "MoveAlias",
        lambda m: v1.MoveAliasRequest(model=m, alias="a", version=1, expected_revision=1),
        Conflict,
        "WRONG_REVISION",
    ),
    ("RemoveAlias", lambda m: v1.RemoveAliasRequest(model=m, alias="a"), NotFound, "ALIAS_NOT_FOUND"),
    ("RemoveAlias", lambda m: v1.RemoveAliasRequest(model=m, alias="7"), InvalidRequest, "INVALID_ALIAS"),
    ("RemoveAlias", lambda m: v1.RemoveAliasRequest(model=m + "x", alias="a"), NotFound, "MODEL_NOT_FOUND"),
    (
        "RemoveAlias",
        lambda m: v1.RemoveAliasRequest(model=m, alias="a", expected_revision=1),
        Conflict,
        "WRONG_REVISION",
    ),
    ("Rollback", lambda m: v1.RollbackRequest(models=m, aliases="a"), NotFound, "ALIAS_NOT_FOUND"),
    (
        "Rollback",
        lambda m: v1.RollbackRequest(models=m, aliases="once"),
        PreconditionFailed,
        "NOTHING_TO_RESTORE",
    ),
    ("Rollback", lambda m: v1.RollbackRequest(models=m + "x", aliases="a"), NotFound, "MODEL_NOT_FOUND"),
    ("Rollback", lambda m: v1.RollbackRequest(models=m), InvalidRequest, "INVALID_SCOPE"),
    (
        "Rollback",
        lambda m: v1.RollbackRequest(models=m, aliases="once", expected_revision=1),
        Conflict,
        "WRONG_REVISION",
    ),
    (
        "Rollback",
        lambda m: v1.RollbackRequest(models=m, aliases="once", as_of=v1.AsOf()),
        InvalidRequest,
        "INVALID_AS_OF",
    ),
    (
        "Rollback",
        lambda m: v1.RollbackRequest(models=m, aliases="once", as_of=v1.AsOf(position=2**63)),
        InvalidRequest,
        "POSITION_AHEAD",
    ),
    ("ResolveAlias", lambda m: v1.ResolveAliasRequest(model=m, alias="a"), NotFound, "ALIAS_NOT_FOUND"),
    ("ResolveAlias", lambda m: v1.ResolveAliasRequest(model=m, alias="v1"), InvalidRequest, "INVALID_ALIAS"),
    ("ResolveAlias", lambda m: v1.ResolveAliasRequest(model=m + "x", alias="a"), NotFound, "MODEL_NOT_FOUND"),
    (
        "ResolveAlias",
        lambda m: v1.ResolveAliasRequest(model=m, alias="a", at=v1.AsOf()),
        InvalidRequest,
        "INVALID_AS_OF",
    ),
    (
        "ResolveAlias",
        lambda m: v1.ResolveAliasRequest(model=m, alias="a", at=v1.AsOf(position=2**64 - 1)),
        InvalidRequest,
        "POSITION_AHEAD",
    ),
    (
        "ResolveAlias",
        lambda m: v1.ResolveAliasRequest(model=m, alias="a", at=v1.AsOf(time=Timestamp(seconds=2**60))),
        InvalidRequest,
        "INVALID_TIME",
    ),
    ("ListAliasHistory", lambda m: v1.ListAliasHistoryRequest(model=m + "x"), NotFound, "MODEL_NOT_FOUND"),
    ("ListAliasHistory", lambda m: v1.ListAliasHistoryRequest(model=m, page_token="="), InvalidRequest, "INVALID_PAGE"),
]


@pytest.fixture(scope="module")
def model_with_alias(system: Up) -> str:
    """Create a model with two versions and an alias that was set once."""
    name = system.new_model()
    system.move(name, 1, "once")
    return name


@pytest.mark.parametrize(("method", "request_of", "kind", "reason"), REJECTED, ids=count())
def test_invalid_request_is_rejected(
    system: Up, model_with_alias: str, method: str, request_of: Callable[[str], object], kind: type, reason: str
) -> None:
    error = system.refused(getattr(system.registry, method), request_of(model_with_alias))
    assert (type(error), error.reason) == (kind, reason)


@pytest.mark.parametrize("actor", ["", "a" * 256, "%00", "%0A", " a"])
def test_invalid_actor_is_rejected(system: Up, model: str, actor: str) -> None:
    request = v1.MoveAliasRequest(model=model, alias="champion", version=1)
    if actor:
        error = system.refused(system.registry.MoveAlias, request, (("rollforward-actor", actor),))
        assert (type(error), error.reason) == (InvalidRequest, "INVALID_ACTOR")
    else:
        response = system.registry.MoveAlias(request, metadata=(("rollforward-actor", ""),), timeout=SECONDS)
        assert response.alias.actor == "anonymous"
