"""What stands in the registry: schedules, what is due, policies, and what is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollforward import v1
from services.registry.queries import aliases, schedules
from services.registry.queries.live_rows import live_rows
from services.registry.queries.policies import policies
from tests.integration.registry.alias_story import MODELS, Story, at, told_story
from tests.integration.registry.registry_rows import BEGAN, SECOND, RegistryRows, all_pages, digest, registry_rows


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The story, told to a database."""
    if request.param == "sqlite":
        with told_story(str(tmp_path_factory.mktemp("rows"))) as told:
            yield told
    else:
        with request.getfixturevalue("postgres").database() as url, told_story(url) as told:
            yield told


@pytest.fixture(params=["sqlite", "postgresql"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryRows]:
    """Empty rows."""
    where = request.getfixturevalue("postgres_url") if request.param == "postgresql" else str(tmp_path)
    with registry_rows(where) as found:
        yield found


def scheduled(number: int, when: int, alias: str = "champion", expected: int | None = None) -> v1.AliasMoveScheduled:
    """A scheduled move of `a`."""
    return v1.AliasMoveScheduled(
        model="a",
        alias=alias,
        schedule_id=f"{number:032x}",
        to_version=1,
        to_digest=digest(1),
        at=at(when),
        expected_revision=expected,
    )


def test_schedules_are_listed_until_they_end(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    for number, when in enumerate([50, 30, 30, 40, 20]):
        rows.append(scheduled(number, when, expected=0 if number else None), actor="Max", reason="because")

    def page(token: str) -> tuple[list[v1.Schedule], str]:
        request = v1.ListSchedulesRequest(model="a", page_size=2, page_token=token)
        found = rows.ask(lambda connection: aliases.list_schedules(connection, request))
        return list(found.schedules), found.next_page_token

    found = all_pages(page)
    assert [int(one.schedule_id, 16) for one in found] == [4, 1, 2, 3, 0]
    assert [one.HasField("expected_revision") for one in found] == [True] * 4 + [False]
    assert (found[0].actor, found[0].reason, found[0].revision) == ("Max", "because", rows.position)
    rows.append(v1.AliasScheduleCancelled(model="a", alias="champion", schedule_id=f"{4:032x}"))
    rows.append(v1.AliasScheduleRefused(model="a", alias="champion", schedule_id=f"{1:032x}"))
    rows.append(v1.AliasMoved(model="a", alias="champion", to_version=1, schedule_id=f"{2:032x}"))
    assert [int(one.schedule_id, 16) for one in all_pages(page)] == [3, 0]


def test_what_is_due(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    rows.append(scheduled(1, 100), actor="Max", reason="later")
    rows.append(scheduled(2, 200))
    ends = rows.append(
        v1.AliasMoved(model="a", alias="x", to_version=1, expires_at=at(150)), actor="Zoë", reason="short"
    )

    def due(now: int) -> tuple[list[tuple[int, str, int, str, str, str]], int | None]:
        found, following = rows.ask(lambda connection: schedules.due(connection, now))
        return [(one.at, one.alias, one.revision, one.actor, one.reason, one.event_id) for one in found], following

    scheduled_first = (100, "champion", 0, "Max", "later", "event-3")
    assert due(99) == ([], 100)
    assert due(100) == ([scheduled_first], 150)
    assert due(199) == ([scheduled_first, (150, "x", ends, "Zoë", "short", f"event-{ends}")], 200)
    rows.append(v1.AliasMoved(model="a", alias="x", from_version=1, to_version=2))
    assert due(199) == ([scheduled_first], 200)
    assert due(500)[1] is None


def test_policies_as_they_stand(rows: RegistryRows) -> None:
    assert rows.ask(policies) == v1.ListPoliciesResponse()
    first, second = (v1.Policy(name=name, models="*", reason_required=True) for name in "ba")
    rows.append(v1.PolicySet(to=first))
    rows.append(v1.PolicySet(to=second))
    changed = v1.Policy(name="b", models="x", reason_required=True)
    rows.append(v1.PolicySet(to=changed))
    assert list(rows.ask(policies).policies) == [second, changed]
    rows.append(v1.PolicyRemoved(policy=second))
    assert rows.ask(policies) == v1.ListPoliciesResponse(policies=[changed], revision=rows.position)


def test_what_is_kept_in_memory(story: Story) -> None:
    live = story.rows.ask(live_rows)
    assert (live.position, live.time) == (story.rows.position, BEGAN + (story.rows.appends - 1) * SECOND)
    assert live.names == {origin: origin for origin in MODELS} | {"a20": "a", "a40": "a"}
    assert live.current == story.names
    assert {key: change.position for key, change in live.changes.items()} == {
        key: story.of(*key)[0].position for key in story.aliases()
    }
    assert live.tags == {"a": {"team": "risk"}, "b*": {"team": "risk"}}
