"""A rebuild of the rows while the registry is queried continuously."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from eventstore.projections.database import Database
from eventstore.projections.generation import Generation
from rollforward import v1
from rollforward._transport.channel import open_channel
from services.registry.projection.tables import models, tables
from tests.e2e.program import until
from tests.integration.cli.command_line import answer, program, refused
from tests.integration.up import Up, up
from tests.timeouts import scaled

# They share a system that takes long to fill.
pytestmark = pytest.mark.xdist_group("rebuild")

SECONDS = scaled(60.0)
HOT = "model-00"
MODELS = tuple(f"model-{number:02}" for number in range(20))
ALIASES = ("champion", *(f"alias-{number:02}" for number in range(24)))
TOTAL = len(MODELS) * len(ALIASES)
READ_MODELS = ("registry", "audit-registry")


@dataclass(frozen=True, slots=True)
class Filled:
    """A running system with some 1,600 events of the registry, and the location of its rows."""

    services: Up
    location: str
    position: int

    def rows(self) -> Generation:
        """Return the live rows of the registry."""
        database = Database(self.location)
        mark, number = database.generations("registry")[-1]
        return database.open("registry", mark, number, tables)

    def generations(self) -> dict[str, int]:
        """Return the live generation of rows by read model."""
        status = self.services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
        return {one.name: one.generation for one in status.projections if one.name in READ_MODELS}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Yield the system over each database."""
    data = tmp_path_factory.mktemp("rebuild") / "data"
    if request.param == "sqlite":
        with up(data) as services:
            yield Filled(services, str(data / "rows"), fill(services))
    else:
        with request.getfixturevalue("postgres").database() as url, up(data, "--database", url) as services:
            yield Filled(services, url, fill(services))


def fill(services: Up) -> int:
    """Create two versions of every model, and move every alias three times, all at once; return the position."""
    digest = services.upload()
    for model in MODELS:
        for _ in range(2):
            request = v1.RegisterVersionRequest(model=model, digest=digest, tags={"of": model})
            services.registry.RegisterVersion(request, timeout=SECONDS)
        tags = v1.ChangeTagsRequest(model=model, set={"team": "risk"})
        services.registry.ChangeTags(tags, timeout=SECONDS)
    position = 0
    for version in (1, 2, 1):
        targets = [v1.AliasTarget(model=model, alias=alias, version=version) for model in MODELS for alias in ALIASES]
        position = services.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS).position
    return position


class Readers:
    """Threads that query continuously until the end of `with`, which raises their errors."""

    def __init__(self, address: str, position: int) -> None:
        self._channel = open_channel(address)
        self._registry = v1.RegistryServiceStub(self._channel)
        self._policies = v1.PolicyServiceStub(self._channel)
        self._audit = v1.AuditServiceStub(self._channel)
        self._position = position
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(32)
        self._working: list[Future[None]] = []
        self.answers: dict[str, int] = {}

    def __enter__(self) -> Readers:
        for statement in (
            self._resolve,
            self._resolve_past,
            self._resolve_all,
            self._resolve_all_past,
            self._model,
            self._version,
            self._models,
            self._versions,
            self._history,
            self._intervals,
            self._nothing_waits,
            self._gates,
            self._dry_run,
            self._events,
            self._export,
        ):
            self.answers[statement.__name__] = 0
            self._working.append(self._pool.submit(self._ask, statement))
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._pool.shutdown(wait=True)
        self._channel.close()
        for statement in self._working:
            statement.result()

    def wait_for_answers(self) -> None:
        """Wait until every query was answered twice more."""
        before = dict(self.answers)
        until(
            lambda: (
                any(one.done() for one in self._working)
                or all(count >= before[name] + 2 for name, count in self.answers.items())
            ),
            "every question is answered",
            SECONDS,
        )

    def _ask(self, statement: Callable[[], Any]) -> None:
        """Repeat a query, whose results must never decrease."""
        last = None
        while not self._enough.is_set():
            now = statement()
            assert last is None or now >= last, f"{statement.__name__} went back from {last} to {now}"
            last = now
            self.answers[statement.__name__] += 1

    def _resolve(self) -> tuple[int, int]:
        request = v1.ResolveAliasRequest(model=HOT, alias="champion")
        found = self._registry.ResolveAlias(request, timeout=SECONDS)
        return found.alias.revision, found.position

    def _resolve_past(self) -> None:
        request = v1.ResolveAliasRequest(model=HOT, alias="champion", at=v1.AsOf(position=self._position))
        found = self._registry.ResolveAlias(request, timeout=SECONDS)
        assert (found.alias.version, found.alias.revision, found.position) == (1, self._position, self._position)

    def _resolve_all(self) -> tuple[int, int]:
        pages = list(_pages(self._registry.ResolveAliases, v1.ResolveAliasesRequest(page_size=200)))
        assert {page.position for page in pages} == {pages[0].position}
        aliases = [one for page in pages for one in page.aliases]
        assert [(one.model, one.alias) for one in aliases] == sorted((m, a) for m in MODELS for a in ALIASES)
        return pages[0].position, max(one.revision for one in aliases)

    def _resolve_all_past(self) -> None:
        request = v1.ResolveAliasesRequest(at=v1.AsOf(position=self._position - 1), page_size=TOTAL)
        (page,) = _pages(self._registry.ResolveAliases, request)
        # The last append wrote up to there, so that the one before it holds.
        assert {(one.version, one.revision) for one in page.aliases} == {(2, self._position - TOTAL)}
        assert len(page.aliases) == TOTAL

    def _model(self) -> tuple[int, int]:
        model = self._registry.GetModel(v1.GetModelRequest(name=HOT), timeout=SECONDS).model
        assert {one.alias for one in model.aliases} == set(ALIASES)
        return model.revision, max(one.revision for one in model.aliases)

    def _version(self) -> None:
        request = v1.GetVersionRequest(model=HOT, version=2)
        assert dict(self._registry.GetVersion(request, timeout=SECONDS).version.tags) == {"of": HOT}

    def _models(self) -> int:
        request = v1.ListModelsRequest(filter="tags.team = 'risk' AND name LIKE 'model-%'", page_size=9)
        found = [one for page in _pages(self._registry.ListModels, request) for one in page.models]
        assert [one.name for one in found] == list(MODELS)
        return int(found[0].revision)

    def _versions(self) -> None:
        request = v1.ListVersionsRequest(filter="version > 1", order_by="name DESC", page_size=17)
        found = [one for page in _pages(self._registry.ListVersions, request) for one in page.versions]
        assert [(one.model, one.version) for one in found] == [(model, 2) for model in reversed(MODELS)]

    def _history(self) -> list[int]:
        request = v1.ListAliasHistoryRequest(model=HOT, alias="champion", page_size=50)
        changes = [one for page in _pages(self._registry.ListAliasHistory, request) for one in page.changes]
        for newer, older in pairwise(changes):
            assert newer.position > older.position
            assert newer.from_version == older.to_version != newer.to_version
        return [one.revision for one in reversed(changes)]

    def _intervals(self) -> list[int]:
        request = v1.ListAliasIntervalsRequest(model=HOT, alias="champion", page_size=50)
        found = [one for page in _pages(self._registry.ListAliasIntervals, request) for one in page.intervals]
        for newer, older in pairwise(found):
            assert older.ended.position == newer.began.position
        return [one.began.revision for one in reversed(found)]

    def _nothing_waits(self) -> None:
        assert not self._registry.ListSchedules(v1.ListSchedulesRequest(), timeout=SECONDS).schedules
        assert not self._policies.ListPolicies(v1.ListPoliciesRequest(), timeout=SECONDS).policies

    def _gates(self) -> int:
        tried = v1.TestGateRequest(expression="candidate.version > 1", model=HOT, alias="champion")
        evidence = self._policies.TestGate(tried, timeout=SECONDS).evidence
        assert [one.passed for one in evidence] == [True, False]
        replayed = v1.ReplayGateRequest(expression="candidate.version > 1", models=HOT, aliases="champion")
        return len(self._policies.ReplayGate(replayed, timeout=SECONDS).moves)

    def _dry_run(self) -> int:
        request = v1.RollbackRequest(models=MODELS[1], aliases="alias-*", dry_run=True)
        found = self._registry.Rollback(request, timeout=SECONDS)
        assert [(one.alias, one.to_version) for one in found.changes] == [(alias, 2) for alias in ALIASES[1:]]
        return found.computed_at

    def _events(self) -> list[int]:
        request = v1.ListEventsRequest(model=HOT, alias="champion", page_size=50)
        found = [one.position for page in _pages(self._audit.ListEvents, request) for one in page.events]
        return sorted(found)

    def _export(self) -> int:
        wanted = v1.ListEventsRequest(log="registry", type="AliasMoved", model=HOT)
        request = v1.ExportEventsRequest(filter=wanted)
        return sum(1 for _ in self._audit.ExportEvents(request, timeout=SECONDS))


def _pages(method: Any, request: Any) -> Iterator[Any]:
    while True:
        page = method(request, timeout=SECONDS)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


class Moves:
    """A thread that moves the champion continuously, reads its own writes, and watches it."""

    def __init__(self, address: str) -> None:
        self.revisions: list[int] = []
        self._seen: list[int] = []
        self._channel = open_channel(address)
        self._registry = v1.RegistryServiceStub(self._channel)
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(2)

    def __enter__(self) -> Moves:
        steps = self._registry.WatchAliases(v1.WatchAliasesRequest(model=HOT, alias="champion"))
        assert next(iter(steps)).HasField("snapshot")
        self._watch = steps
        self._watching = self._pool.submit(self._follow, steps)
        self._moving = self._pool.submit(self._move)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._moving.result()
        until(
            lambda: self._watching.done() or self.revisions[-1:] == self._seen[-1:], "the last move is heard", SECONDS
        )
        self._watch.cancel()
        self._watching.result()
        self._pool.shutdown(wait=True)
        self._channel.close()
        assert self._seen == self.revisions

    def _move(self) -> None:
        version = 1
        while not self._enough.is_set():
            version = 3 - version
            request = v1.MoveAliasRequest(model=HOT, alias="champion", version=version)
            moved = self._registry.MoveAlias(request, timeout=SECONDS)
            self.revisions.append(moved.alias.revision)
            behind = (("rollforward-min-position", f"registry={moved.position}"),)
            model = self._registry.GetModel(v1.GetModelRequest(name=HOT), metadata=behind, timeout=SECONDS).model
            assert {one.alias: one.revision for one in model.aliases}["champion"] == moved.alias.revision

    def _follow(self, steps: Iterable[v1.WatchAliasesResponse]) -> None:
        try:
            for step in steps:
                self._seen.extend(change.revision for change in step.changes.changes)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.CANCELLED, error  # noqa: PT017 - it is how a watch ends


def test_queries_neither_fail_nor_regress_during_rebuild(filled: Filled) -> None:
    rollforward = program(filled.services.address)
    before = filled.generations()
    with (
        Moves(filled.services.address) as moves,
        Readers(filled.services.address, filled.position) as readers,
    ):
        readers.wait_for_answers()
        for name in READ_MODELS:
            moved = len(moves.revisions)
            last = answer(rollforward("rebuild", name, "-o", "json"))
            assert last["live_digest"] == last["rebuilt_digest"]
            assert len(moves.revisions) > moved
            readers.wait_for_answers()
    assert all(number > before[name] for name, number in filled.generations().items())


def test_tampered_rows_are_reported_and_kept(filled: Filled) -> None:
    rollforward = program(filled.services.address)
    request = v1.GetModelRequest(name=HOT)
    description = filled.services.registry.GetModel(request, timeout=SECONDS).model.description
    live = filled.rows()
    change = sa.update(models).where(models.c.name == HOT)
    with live.writing() as rows:
        rows.execute(change.values(description="tampered with"))
    before = filled.generations()
    assert refused(rollforward("rebuild", "registry", "-o", "json")) == "REBUILD_DIFFERS"
    assert filled.generations() == before
    assert filled.services.registry.GetModel(request, timeout=SECONDS).model.description == "tampered with"
    with live.writing() as rows:
        rows.execute(change.values(description=description))
    live.close()
    assert "rebuilt_digest" in answer(rollforward("rebuild", "registry", "-o", "json"))
    assert filled.generations()["registry"] > before["registry"]
