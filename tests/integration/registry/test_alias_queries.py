"""Queries of aliases, now and in the past: the rows of both databases agree with a list of all changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.errors import Rejected
from rollforward import v1
from services.registry.queries import aliases
from tests.integration.registry.alias_scenario import ALIASES, MODELS, AliasScenario, Change, at, run_scenario
from tests.integration.registry.registry_rows import BEGAN, SECOND, RegistryRows, all_pages, digest, registry_rows


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AliasScenario]:
    """Run the scenario on a database."""
    if request.param == "sqlite":
        with run_scenario(str(tmp_path_factory.mktemp("rows"))) as ran:
            yield ran
    else:
        with request.getfixturevalue("postgres").database() as url, run_scenario(url) as ran:
            yield ran


@pytest.fixture(params=["sqlite", "postgresql"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryRows]:
    """Yield empty rows."""
    location = request.getfixturevalue("postgres_url") if request.param == "postgresql" else str(tmp_path)
    with registry_rows(location) as empty:
        yield empty


def test_alias_is_resolved_at_every_position(scenario: AliasScenario) -> None:
    def check(connection: sa.Connection) -> None:
        for position in range(scenario.rows.position + 1):
            for origin in MODELS:
                for alias in ALIASES:
                    past = [change for change in scenario.of(origin, alias) if change.revision <= position]
                    resolved = aliases.assignment(connection, scenario.names[origin], alias, position)
                    expected = (past[0].after, past[0].revision) if past else (0, 0)
                    assert (resolved.version, resolved.revision) == expected
                    assert resolved.model == scenario.names[origin]

    scenario.rows.query(check)


def test_resolution_has_position_and_time(scenario: AliasScenario) -> None:
    def check(connection: sa.Connection) -> None:
        for origin, alias in scenario.aliases():
            for position in (None, 30, 60, scenario.rows.position):
                past = [
                    change for change in scenario.of(origin, alias) if position is None or change.revision <= position
                ]
                if past and past[0].after:
                    resolved = aliases.resolve(connection, scenario.names[origin], alias, position)
                    assert (resolved.alias.version, resolved.alias.revision) == (past[0].after, past[0].revision)
                    assert resolved.alias.digest == digest(past[0].after)
                    assert resolved.position == (scenario.rows.position if position is None else position)
                    assert BEGAN <= resolved.time.ToNanoseconds() <= BEGAN + scenario.rows.appends * SECOND
                else:
                    with pytest.raises(Rejected) as refused:
                        aliases.resolve(connection, scenario.names[origin], alias, position)
                    assert refused.value.reason == "ALIAS_NOT_FOUND"
        now = [aliases.resolve(connection, "c1", alias) for alias in ALIASES if scenario.current("c1", alias)]
        assert {resolved.time.ToNanoseconds() for resolved in now} == {BEGAN + (scenario.rows.appends - 1) * SECOND}

    scenario.rows.query(check)


@pytest.mark.parametrize(("model", "reason"), [("nobody", "MODEL_NOT_FOUND"), ("a", "MODEL_RENAMED")])
def test_unknown_or_former_model_name_is_rejected(scenario: AliasScenario, model: str, reason: str) -> None:
    queries = [
        lambda rows: aliases.resolve(rows, model, "champion"),
        lambda rows: aliases.resolve(rows, model, "champion", 30),
        lambda rows: aliases.resolve_aliases(rows, v1.ResolveAliasesRequest(model=model)),
        lambda rows: aliases.list_history(rows, v1.ListAliasHistoryRequest(model=model)),
        lambda rows: aliases.list_intervals(rows, v1.ListAliasIntervalsRequest(model=model), 0),
        lambda rows: aliases.list_schedules(rows, v1.ListSchedulesRequest(model=model)),
    ]
    for query in queries:
        with pytest.raises(Rejected) as refused:
            scenario.rows.query(query)
        assert refused.value.reason == reason


@pytest.mark.parametrize("position", [None, 0, 25, 47, 90])
@pytest.mark.parametrize("model", ["", "a40"])
def test_aliases_are_listed_as_of_position(scenario: AliasScenario, position: int | None, model: str) -> None:
    def page(token: str) -> tuple[list[v1.Alias], str]:
        request = v1.ResolveAliasesRequest(model=model, page_size=2, page_token=token)
        response = scenario.rows.query(lambda connection: aliases.resolve_aliases(connection, request, position))
        assert response.position == (scenario.rows.position if position is None else position)
        return list(response.aliases), response.next_page_token

    expected = []
    for origin, alias in scenario.aliases():
        past = [change for change in scenario.of(origin, alias) if position is None or change.revision <= position]
        if past and past[0].after and model in {"", scenario.names[origin]}:
            expected.append((scenario.names[origin], alias, past[0].after, past[0].revision))
    assert [(found.model, found.alias, found.version, found.revision) for found in all_pages(page)] == expected


def test_pages_of_aliases_keep_position(rows: RegistryRows) -> None:
    for name in ("a", "b", "c"):
        rows.create(name)
        rows.register(name)
        rows.register(name)
        rows.move(name, "champion", 1)
    then = rows.position

    def page(token: str) -> tuple[list[tuple[str, int]], str]:
        request = v1.ResolveAliasesRequest(page_size=1, page_token=token)
        response = rows.query(lambda connection: aliases.resolve_aliases(connection, request))
        assert response.position == then
        if not token:
            rows.move("c", "champion", 2)
            rows.rename("b", "0")
        return [(found.alias, found.version) for found in response.aliases], response.next_page_token

    assert all_pages(page) == [("champion", 1)] * 3


@pytest.mark.parametrize(
    "conditions",
    [
        v1.ListAliasHistoryRequest(),
        v1.ListAliasHistoryRequest(model="a40"),
        v1.ListAliasHistoryRequest(model="c[1]", alias="prod-eu"),
        v1.ListAliasHistoryRequest(alias="prod-us", moved=False),
        v1.ListAliasHistoryRequest(actor="Zoë", moved=True),
        v1.ListAliasHistoryRequest(actor="nobody"),
        v1.ListAliasHistoryRequest(cause=v1.ALIAS_CAUSE_ROLLBACK),
        v1.ListAliasHistoryRequest(since=at(BEGAN + 30 * SECOND), until=at(BEGAN + 50 * SECOND)),
        v1.ListAliasHistoryRequest(
            model="c1", actor="Max", until=at(BEGAN + 60 * SECOND), cause=v1.ALIAS_CAUSE_REQUEST
        ),
    ],
    ids=str,
)
def test_history_is_filtered(scenario: AliasScenario, conditions: v1.ListAliasHistoryRequest) -> None:
    def page(token: str) -> tuple[list[int], str]:
        request = v1.ListAliasHistoryRequest(page_size=7, page_token=token)
        request.MergeFrom(conditions)
        response = scenario.rows.query(lambda connection: aliases.list_history(connection, request))
        return [change.position for change in response.changes], response.next_page_token

    def matches(change: Change) -> bool:
        return (
            conditions.model in {"", scenario.names[change.origin]}
            and conditions.alias in {"", change.alias}
            and conditions.actor in {"", change.actor}
            and (not conditions.HasField("moved") or conditions.moved == bool(change.after))
            and conditions.cause in {v1.ALIAS_CAUSE_UNSPECIFIED, v1.ALIAS_CAUSE_REQUEST}
            and (not conditions.HasField("since") or change.time >= conditions.since.ToNanoseconds())
            and (not conditions.HasField("until") or change.time < conditions.until.ToNanoseconds())
        )

    assert all_pages(page) == [change.position for change in reversed(scenario.changes) if matches(change)]


def test_change_keeps_name_of_its_time(scenario: AliasScenario) -> None:
    request = v1.ListAliasHistoryRequest(model="a40", page_size=1000)
    response = scenario.rows.query(lambda connection: aliases.list_history(connection, request))
    assert {change.model for change in response.changes} == {"a", "a20", "a40"}


@pytest.mark.parametrize("since", [None, 30, 500])
@pytest.mark.parametrize("until", [None, 40, 0])
def test_intervals_are_listed(scenario: AliasScenario, since: int | None, until: int | None) -> None:
    now = BEGAN + 1000 * SECOND

    def page(model: str, alias: str, token: str) -> tuple[list[tuple[int, int, int]], str]:
        request = v1.ListAliasIntervalsRequest(
            model=model,
            alias=alias,
            since=at(BEGAN + since * SECOND) if since is not None else None,
            until=at(BEGAN + until * SECOND) if until is not None else None,
            page_size=2,
            page_token=token,
        )
        response = scenario.rows.query(lambda connection: aliases.list_intervals(connection, request, now))
        intervals = [
            (
                interval.began.position,
                interval.ended.position if interval.HasField("ended") else 0,
                interval.duration.ToNanoseconds(),
            )
            for interval in response.intervals
        ]
        return intervals, response.next_page_token

    for origin, alias in scenario.aliases():
        expected = []
        ended: Change | None = None
        for change in scenario.of(origin, alias):
            to = ended.time if ended else now
            lasted = since is None or ended is None or to >= BEGAN + since * SECOND
            if change.after and lasted and (until is None or change.time < BEGAN + until * SECOND):
                expected.append((change.position, ended.position if ended else 0, to - change.time))
            ended = change
        name = scenario.names[origin]
        assert all_pages(lambda token, name=name, alias=alias: page(name, alias, token)) == expected  # type: ignore[misc]


def test_unknown_alias_has_no_intervals(scenario: AliasScenario) -> None:
    request = v1.ListAliasIntervalsRequest(model="c1", alias="nobody")
    with pytest.raises(Rejected) as refused:
        scenario.rows.query(lambda connection: aliases.list_intervals(connection, request, 0))
    assert refused.value.reason == "ALIAS_NOT_FOUND"


@pytest.mark.parametrize(
    ("model", "alias", "tags"),
    [("", "", {}), ("a40", "", {}), ("a", "champion", {}), ("", "prod-eu", {"team": "risk"}), ("nobody", "", {})],
)
def test_snapshot_has_current_aliases(scenario: AliasScenario, model: str, alias: str, tags: dict[str, str]) -> None:
    found, position = scenario.rows.query(lambda connection: aliases.snapshot(connection, model, alias, tags))
    assert position == scenario.rows.position
    expected = {
        (scenario.names[origin], name, scenario.current(origin, name))
        for origin, name in scenario.aliases()
        if scenario.current(origin, name)
        and (not model or model in {origin, scenario.names[origin]})
        and alias in {"", name}
        and (not tags or origin < "c")
    }
    assert {(item.model, item.alias, item.version) for item in found} == expected
    assert len(found) == len(expected)
