"""The registry's current state in rows: schedules, due moves, policies, and what the live view loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollforward import v1
from services.registry.queries import aliases, schedules
from services.registry.queries.live_rows import live_rows
from services.registry.queries.policies import policies
from tests.integration.registry.alias_scenario import MODELS, AliasScenario, at, run_scenario
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


def scheduled(number: int, when: int, alias: str = "champion", expected: int | None = None) -> v1.AliasMoveScheduled:
    """Return the event of a scheduled move of `a`."""
    return v1.AliasMoveScheduled(
        model="a",
        alias=alias,
        schedule_id=f"{number:032x}",
        to_version=1,
        to_digest=digest(1),
        at=at(when),
        expected_revision=expected,
    )


def test_schedules_are_listed_while_pending(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    for number, when in enumerate([50, 30, 30, 40, 20]):
        rows.append(scheduled(number, when, expected=0 if number else None), actor="Max", reason="because")

    def page(token: str) -> tuple[list[v1.Schedule], str]:
        request = v1.ListSchedulesRequest(model="a", page_size=2, page_token=token)
        response = rows.query(lambda connection: aliases.list_schedules(connection, request))
        return list(response.schedules), response.next_page_token

    pending = all_pages(page)
    assert [int(schedule.schedule_id, 16) for schedule in pending] == [4, 1, 2, 3, 0]
    assert [schedule.HasField("expected_revision") for schedule in pending] == [True] * 4 + [False]
    assert (pending[0].actor, pending[0].reason, pending[0].revision) == ("Max", "because", rows.position)
    rows.append(v1.AliasScheduleCancelled(model="a", alias="champion", schedule_id=f"{4:032x}"))
    rows.append(v1.AliasScheduleRefused(model="a", alias="champion", schedule_id=f"{1:032x}"))
    rows.append(v1.AliasMoved(model="a", alias="champion", to_version=1, schedule_id=f"{2:032x}"))
    assert [int(schedule.schedule_id, 16) for schedule in all_pages(page)] == [3, 0]


def test_due_moves_and_expiries_are_found(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    rows.append(scheduled(1, 100), actor="Max", reason="later")
    rows.append(scheduled(2, 200))
    ends = rows.append(
        v1.AliasMoved(model="a", alias="x", to_version=1, expires_at=at(150)), actor="Zoë", reason="short"
    )

    def due_at(now: int) -> tuple[list[tuple[int, str, int, str, str, str]], int | None]:
        items, following = rows.query(lambda connection: schedules.due(connection, now))
        return [
            (due_at.at, due_at.alias, due_at.revision, due_at.actor, due_at.reason, due_at.event_id) for due_at in items
        ], following

    scheduled_first = (100, "champion", 0, "Max", "later", "event-3")
    assert due_at(99) == ([], 100)
    assert due_at(100) == ([scheduled_first], 150)
    assert due_at(199) == ([scheduled_first, (150, "x", ends, "Zoë", "short", f"event-{ends}")], 200)
    rows.append(v1.AliasMoved(model="a", alias="x", from_version=1, to_version=2))
    assert due_at(199) == ([scheduled_first], 200)
    assert due_at(500)[1] is None


def test_current_policies_are_listed(rows: RegistryRows) -> None:
    assert rows.query(policies) == v1.ListPoliciesResponse()
    first, second = (v1.Policy(name=name, models="*", reason_required=True) for name in "ba")
    rows.append(v1.PolicySet(to=first))
    rows.append(v1.PolicySet(to=second))
    changed = v1.Policy(name="b", models="x", reason_required=True)
    rows.append(v1.PolicySet(to=changed))
    assert list(rows.query(policies).policies) == [second, changed]
    rows.append(v1.PolicyRemoved(policy=second))
    assert rows.query(policies) == v1.ListPoliciesResponse(policies=[changed], revision=rows.position)


def test_live_view_loads_current_state(scenario: AliasScenario) -> None:
    live = scenario.rows.query(live_rows)
    assert (live.position, live.time) == (scenario.rows.position, BEGAN + (scenario.rows.appends - 1) * SECOND)
    assert live.names == {origin: origin for origin in MODELS} | {"a20": "a", "a40": "a"}
    assert live.current == scenario.names
    assert {key: change.position for key, change in live.changes.items()} == {
        key: scenario.of(*key)[0].position for key in scenario.aliases()
    }
    assert live.tags == {"a": {"team": "risk"}, "b*": {"team": "risk"}}
