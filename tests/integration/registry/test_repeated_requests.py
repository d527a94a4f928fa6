"""A repeated request returns the first response, even if it would be rejected by now."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import from_rpc_error
from tests.integration.registry.scored_models import headers_at_head, new_run, register_request
from tests.integration.up import ACTOR, SECONDS, Up, new_id
from tests.timeouts import in_time, scaled


def test_repeated_copy_of_deleted_version_returns_first_response(system: Up, model: str) -> None:
    request = v1.CopyVersionRequest(model=model, version=2, to_model=new_id(), request_id=new_id())
    first = system.registry.CopyVersion(request, metadata=ACTOR, timeout=SECONDS)
    system.registry.DeleteVersion(v1.DeleteVersionRequest(model=model, version=2), timeout=SECONDS)
    heads = system.heads()
    assert system.registry.CopyVersion(request, metadata=ACTOR, timeout=SECONDS) == first
    system.registry.RenameModel(v1.RenameModelRequest(model=model, new_name=new_id()), timeout=SECONDS)
    assert system.registry.CopyVersion(request, metadata=ACTOR, timeout=SECONDS) == first
    assert system.heads()["registry"] == heads["registry"] + 2
    request.request_id = new_id()
    assert system.refused(system.registry.CopyVersion, request, ACTOR).reason == "MODEL_RENAMED"


def check_repetition(system: Up, first: v1.RegisterVersionResponse, request: v1.RegisterVersionRequest) -> str:
    """Check that a repeated registration returns the first response; return why a new one like it is rejected."""
    heads = system.heads()
    assert system.registry.RegisterVersion(request, metadata=ACTOR, timeout=SECONDS) == first
    assert system.heads() == heads
    request.request_id = new_id()
    return system.refused(system.registry.RegisterVersion, request, ACTOR).reason


def test_repeated_registration_of_lost_artifact_returns_first_response(system: Up) -> None:
    digest = system.upload(new_id().encode())
    request = v1.RegisterVersionRequest(model=new_id(), digest=digest, request_id=new_id())
    first = system.registry.RegisterVersion(request, metadata=ACTOR, timeout=SECONDS)
    stored = list((system.data / "artifacts").rglob(digest.removeprefix("sha256:")))
    assert stored
    for file in stored:
        file.unlink()
    assert check_repetition(system, first, request) == "ARTIFACT_NOT_FOUND"


def test_repeated_registration_of_replaced_artifact_returns_first_response(system: Up) -> None:
    run_id, digest = new_run(system, f1=0.9), system.upload()
    request = register_request(new_id(), run_id, digest=digest, request_id=new_id())
    first = system.registry.RegisterVersion(request, metadata=headers_at_head(system), timeout=SECONDS)
    other = v1.LogArtifactRequest(run_id=run_id, path="model", digest=system.upload(new_id().encode()))
    system.tracking.LogArtifact(other, timeout=SECONDS)
    assert system.registry.RegisterVersion(request, metadata=headers_at_head(system), timeout=SECONDS) == first
    assert check_repetition(system, first, request) == "INVALID_DIGEST"


def test_repeated_registration_of_lost_run_returns_first_response(system: Up) -> None:
    run_id, model = new_run(system, f1=0.9), new_id()
    gated = v1.CreateModelRequest(name=model, registration_gate="run.metrics.f1 > 0.5")
    system.registry.CreateModel(gated, timeout=SECONDS)
    request = register_request(model, run_id, request_id=new_id())
    first = system.registry.RegisterVersion(request, metadata=headers_at_head(system), timeout=SECONDS)
    (file,) = system.data.rglob("rf_registry_runs_*.db")
    with closing(sqlite3.connect(file, timeout=SECONDS, isolation_level=None)) as rows:
        assert rows.execute("DELETE FROM runs WHERE run_id = ?", (run_id,)).rowcount == 1
        try:
            assert check_repetition(system, first, request) == "RUN_NOT_FOUND"
        finally:  # other tests compare these rows with a rebuild
            rows.execute("INSERT INTO runs (run_id) VALUES (?)", (run_id,))


def test_rejected_registration_may_be_retried_until_it_succeeds(system: Up) -> None:
    request = v1.RegisterVersionRequest(model=new_id(), digest=f"sha256:{new_id() * 2}", request_id=new_id())
    assert system.refused(system.registry.RegisterVersion, request, ACTOR).reason == "ARTIFACT_NOT_FOUND"
    request.digest = system.upload()
    assert system.registry.RegisterVersion(request, metadata=ACTOR, timeout=SECONDS).version.version == 1
    request.digest = "sha256:"
    assert system.refused(system.registry.RegisterVersion, request, ACTOR).reason == "REQUEST_ID_REUSED"


def test_repeated_move_after_its_expiry_returns_first_response(system: Up, model: str) -> None:
    system.move(model, 1)

    def attempt(seconds: float) -> tuple[v1.MoveAliasRequest, v1.MoveAliasResponse] | None:
        ends = Timestamp()
        ends.FromNanoseconds(time.time_ns() + round(seconds * 10**9))
        request = v1.MoveAliasRequest(model=model, alias="champion", version=2, expires_at=ends, request_id=new_id())
        try:
            return request, system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
        except grpc.RpcError as error:
            if from_rpc_error(error).reason != "INVALID_TIME":
                raise
            return None

    request, first = in_time(attempt)
    watch = system.registry.WatchAliases(
        v1.WatchAliasesRequest(model=model, from_revision=first.position), timeout=scaled(30)
    )
    assert next(step for step in watch if step.HasField("changes")).changes.changes[0].cause == v1.ALIAS_CAUSE_EXPIRY
    watch.cancel()
    assert system.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS) == first
    request.request_id = new_id()
    assert system.refused(system.registry.MoveAlias, request, ACTOR).reason == "INVALID_TIME"


def test_repetition_under_former_name_returns_first_response(system: Up, model: str) -> None:
    created = v1.CreateModelRequest(name=new_id(), request_id=new_id())
    system.registry.CreateModel(created, timeout=SECONDS)
    move = v1.MoveAliasRequest(model=model, alias="champion", version=2, request_id=new_id())
    targets = [v1.AliasTarget(model=model, alias="canary", version=1)]
    release = v1.MoveAliasesRequest(targets=targets, request_id=new_id())
    moved = system.registry.MoveAlias(move, metadata=ACTOR, timeout=SECONDS)
    released = system.registry.MoveAliases(release, metadata=ACTOR, timeout=SECONDS)
    system.move(model, 1)
    for name in (created.name, model):
        system.registry.RenameModel(v1.RenameModelRequest(model=name, new_name=f"{name}-now"), timeout=SECONDS)
    heads = system.heads()
    again = system.registry.CreateModel(created, timeout=SECONDS).model
    assert (again.name, list(again.former_names)) == (f"{created.name}-now", [created.name])
    assert system.registry.MoveAlias(move, metadata=ACTOR, timeout=SECONDS) == moved
    assert system.registry.MoveAliases(release, metadata=ACTOR, timeout=SECONDS) == released
    assert system.heads() == heads
