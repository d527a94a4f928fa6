"""Responses stay within gRPC's message size: pages end earlier, and snapshots are split into parts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message

from rollforward import v1
from services.listings.pages import LARGEST_BYTES
from tests.integration.up import ACTOR, SECONDS, Up, new_id

MANY = 1000
"""The maximum size of a page and of a release set."""

LONG = "r" * 2_800
"""The longest reason for a release set of MANY aliases."""


def read_pages(method: Callable[..., Any], request: Any) -> list[Any]:
    """Return all pages of a listing."""
    pages: list[Any] = []
    request.page_size = MANY
    while not pages or request.page_token:
        pages.append(method(request, timeout=SECONDS))
        request.page_token = pages[-1].next_page_token
    return pages


def check_pages(pages: list[Any], rows: str) -> list[Any]:
    """Return the rows of pages, after checking that each page ended because of its size in bytes."""
    sizes = [[row.ByteSize() for row in getattr(page, rows)] for page in pages]
    assert len(sizes) > 1
    assert all(sum(page) <= LARGEST_BYTES for page in sizes)
    assert all(sum(page) + following[0] > LARGEST_BYTES for page, following in pairwise(sizes))
    return [row for page in pages for row in getattr(page, rows)]


@pytest.fixture(scope="module")
def released(system: Up) -> tuple[str, int]:
    """Create a model with MANY aliases, moved at one revision with a long reason."""
    model = system.new_model(1)
    targets = [v1.AliasTarget(model=model, alias=f"a-{number:03}", version=1) for number in range(MANY)]
    request = v1.MoveAliasesRequest(targets=targets, reason=LONG)
    return model, system.registry.MoveAliases(request, metadata=ACTOR, timeout=SECONDS).revision


def test_large_alias_listings_are_paged_by_size(system: Up, released: tuple[str, int]) -> None:
    model, revision = released
    history = read_pages(system.registry.ListAliasHistory, v1.ListAliasHistoryRequest(model=model))
    changes = check_pages(history, "changes")
    assert [change.alias for change in changes] == [f"a-{number:03}" for number in reversed(range(MANY))]
    assert {(change.reason, change.revision) for change in changes} == {(LONG, revision)}
    resolved = check_pages(read_pages(system.registry.ResolveAliases, v1.ResolveAliasesRequest(model=model)), "aliases")
    assert [alias.alias for alias in resolved] == [f"a-{number:03}" for number in range(MANY)]
    events = check_pages(
        read_pages(system.audit.ListEvents, v1.ListEventsRequest(model=model, type="AliasMoved")), "events"
    )
    assert len({event.event_id for event in events}) == len(events) == MANY


def test_model_with_many_aliases_is_listed_without_reasons(system: Up, released: tuple[str, int]) -> None:
    model, revision = released
    requests = v1.ListModelsRequest(filter=f"name = '{model}'")
    (listed,) = system.registry.ListModels(requests, timeout=SECONDS).models
    assert len(listed.aliases) == MANY
    assert {(alias.reason, alias.revision) for alias in listed.aliases} == {("", revision)}
    assert system.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS).model == listed


def test_snapshot_is_split_and_append_is_one_step(system: Up, released: tuple[str, int]) -> None:
    model, revision = released
    watch = system.registry.WatchAliases(v1.WatchAliasesRequest(model=model), timeout=SECONDS)
    parts = [next(watch)]
    while parts[-1].snapshot.continues:
        assert parts[-1].position == 0
        parts.append(next(watch))
    watch.cancel()
    assert len(parts) == 2
    assert parts[-1].position >= revision
    names = [alias.alias for part in parts for alias in part.snapshot.aliases]
    assert names == [f"a-{number:03}" for number in range(MANY)]
    resumed = system.registry.WatchAliases(
        v1.WatchAliasesRequest(model=model, from_revision=revision - 1), timeout=SECONDS
    )
    assert len(next(resumed).changes.changes) == MANY
    resumed.cancel()


def test_release_set_too_large_for_watch_is_rejected(system: Up, released: tuple[str, int]) -> None:
    model, _ = released
    digest = system.upload(b"another")
    system.registry.RegisterVersion(v1.RegisterVersionRequest(model=model, digest=digest), timeout=SECONDS)
    targets = [v1.AliasTarget(model=model, alias=f"a-{number:03}", version=2) for number in range(MANY)]
    request = v1.MoveAliasesRequest(targets=targets, reason="r" * 4_000)
    assert system.refused(system.registry.MoveAliases, request, ACTOR).reason == "MESSAGE_TOO_LARGE"


def test_large_models_versions_runs_and_events_are_paged_by_size(system: Up) -> None:
    own = new_id()
    tags = {"own": own} | {f"t{number}": "v" * 5_000 for number in range(160)}
    digest, experiment = system.upload(), system.new_experiment()
    for number in range(4):
        system.registry.CreateModel(v1.CreateModelRequest(name=f"{own}-{number}", tags=tags), timeout=SECONDS)
        version = v1.RegisterVersionRequest(model=f"{own}-0", digest=digest, tags=tags)
        system.registry.RegisterVersion(version, timeout=SECONDS)
        run = v1.StartRunRequest(run_id=new_id(), experiment_id=experiment, tags=tags)
        system.tracking.StartRun(run, timeout=SECONDS)
    requests: list[tuple[Callable[..., Any], Message, str]] = [
        (system.registry.ListModels, v1.ListModelsRequest(filter=f"tags.own = '{own}'"), "models"),
        (system.registry.ListVersions, v1.ListVersionsRequest(model=f"{own}-0"), "versions"),
        (system.tracking.ListRuns, v1.ListRunsRequest(experiment_id=experiment), "runs"),
        (system.audit.ListEvents, v1.ListEventsRequest(type="VersionRegistered", model=f"{own}-0"), "events"),
    ]
    for method, request, rows in requests:
        assert len(check_pages(read_pages(method, request), rows)) == 4
