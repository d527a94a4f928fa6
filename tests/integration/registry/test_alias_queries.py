"""Questions about aliases, now and in the past: the rows of both databases say what a list of all changes says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.errors import Rejected
from rollforward import v1
from services.registry.queries import aliases
from tests.integration.registry.alias_story import ALIASES, MODELS, Change, Story, at, told_story
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


def test_every_alias_at_every_position(story: Story) -> None:
    def answers(connection: sa.Connection) -> None:
        for position in range(story.rows.position + 1):
            for origin in MODELS:
                for alias in ALIASES:
                    past = [one for one in story.of(origin, alias) if one.revision <= position]
                    found = aliases.assignment(connection, story.names[origin], alias, position)
                    expected = (past[0].after, past[0].revision) if past else (0, 0)
                    assert (found.version, found.revision) == expected
                    assert found.model == story.names[origin]

    story.rows.ask(answers)


def test_resolving_now_and_then_names_position_and_time(story: Story) -> None:
    def answers(connection: sa.Connection) -> None:
        for origin, alias in story.aliases():
            for position in (None, 30, 60, story.rows.position):
                past = [one for one in story.of(origin, alias) if position is None or one.revision <= position]
                if past and past[0].after:
                    found = aliases.resolve(connection, story.names[origin], alias, position)
                    assert (found.alias.version, found.alias.revision) == (past[0].after, past[0].revision)
                    assert found.alias.digest == digest(past[0].after)
                    assert found.position == (story.rows.position if position is None else position)
                    assert BEGAN <= found.time.ToNanoseconds() <= BEGAN + story.rows.appends * SECOND
                else:
                    with pytest.raises(Rejected) as refused:
                        aliases.resolve(connection, story.names[origin], alias, position)
                    assert refused.value.reason == "ALIAS_NOT_FOUND"
        now = [aliases.resolve(connection, "c1", alias) for alias in ALIASES if story.held("c1", alias)]
        assert {one.time.ToNanoseconds() for one in now} == {BEGAN + (story.rows.appends - 1) * SECOND}

    story.rows.ask(answers)


@pytest.mark.parametrize(("model", "reason"), [("nobody", "MODEL_NOT_FOUND"), ("a", "MODEL_RENAMED")])
def test_a_model_that_is_not_called_so_is_refused(story: Story, model: str, reason: str) -> None:
    asked = [
        lambda rows: aliases.resolve(rows, model, "champion"),
        lambda rows: aliases.resolve(rows, model, "champion", 30),
        lambda rows: aliases.resolve_aliases(rows, v1.ResolveAliasesRequest(model=model)),
        lambda rows: aliases.list_history(rows, v1.ListAliasHistoryRequest(model=model)),
        lambda rows: aliases.list_intervals(rows, v1.ListAliasIntervalsRequest(model=model), 0),
        lambda rows: aliases.list_schedules(rows, v1.ListSchedulesRequest(model=model)),
    ]
    for statement in asked:
        with pytest.raises(Rejected) as refused:
            story.rows.ask(statement)
        assert refused.value.reason == reason


@pytest.mark.parametrize("position", [None, 0, 25, 47, 90])
@pytest.mark.parametrize("model", ["", "a40"])
def test_all_aliases_as_of_a_position(story: Story, position: int | None, model: str) -> None:
    def page(token: str) -> tuple[list[v1.Alias], str]:
        request = v1.ResolveAliasesRequest(model=model, page_size=2, page_token=token)
        found = story.rows.ask(lambda connection: aliases.resolve_aliases(connection, request, position))
        assert found.position == (story.rows.position if position is None else position)
        return list(found.aliases), found.next_page_token

    expected = []
    for origin, alias in story.aliases():
        past = [one for one in story.of(origin, alias) if position is None or one.revision <= position]
        if past and past[0].after and model in {"", story.names[origin]}:
            expected.append((story.names[origin], alias, past[0].after, past[0].revision))
    assert [(one.model, one.alias, one.version, one.revision) for one in all_pages(page)] == expected


def test_pages_of_all_aliases_keep_their_position(rows: RegistryRows) -> None:
    for name in ("a", "b", "c"):
        rows.create(name)
        rows.register(name)
        rows.register(name)
        rows.move(name, "champion", 1)
    then = rows.position

    def page(token: str) -> tuple[list[tuple[str, int]], str]:
        request = v1.ResolveAliasesRequest(page_size=1, page_token=token)
        found = rows.ask(lambda connection: aliases.resolve_aliases(connection, request))
        assert found.position == then
        if not token:
            rows.move("c", "champion", 2)
            rows.rename("b", "0")
        return [(one.alias, one.version) for one in found.aliases], found.next_page_token

    assert all_pages(page) == [("champion", 1)] * 3


@pytest.mark.parametrize(
    "asked",
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
def test_history_by_every_condition(story: Story, asked: v1.ListAliasHistoryRequest) -> None:
    def page(token: str) -> tuple[list[int], str]:
        request = v1.ListAliasHistoryRequest(page_size=7, page_token=token)
        request.MergeFrom(asked)
        found = story.rows.ask(lambda connection: aliases.list_history(connection, request))
        return [change.position for change in found.changes], found.next_page_token

    def matches(one: Change) -> bool:
        return (
            asked.model in {"", story.names[one.origin]}
            and asked.alias in {"", one.alias}
            and asked.actor in {"", one.actor}
            and (not asked.HasField("moved") or asked.moved == bool(one.after))
            and asked.cause in {v1.ALIAS_CAUSE_UNSPECIFIED, v1.ALIAS_CAUSE_REQUEST}
            and (not asked.HasField("since") or one.time >= asked.since.ToNanoseconds())
            and (not asked.HasField("until") or one.time < asked.until.ToNanoseconds())
        )

    assert all_pages(page) == [one.position for one in reversed(story.changes) if matches(one)]


def test_a_change_keeps_the_name_that_its_model_had(story: Story) -> None:
    request = v1.ListAliasHistoryRequest(model="a40", page_size=1000)
    found = story.rows.ask(lambda connection: aliases.list_history(connection, request))
    assert {change.model for change in found.changes} == {"a", "a20", "a40"}


@pytest.mark.parametrize("since", [None, 30, 500])
@pytest.mark.parametrize("until", [None, 40, 0])
def test_intervals(story: Story, since: int | None, until: int | None) -> None:
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
        found = story.rows.ask(lambda connection: aliases.list_intervals(connection, request, now))
        told = [
            (one.began.position, one.ended.position if one.HasField("ended") else 0, one.duration.ToNanoseconds())
            for one in found.intervals
        ]
        return told, found.next_page_token

    for origin, alias in story.aliases():
        expected = []
        ended: Change | None = None
        for one in story.of(origin, alias):
            to = ended.time if ended else now
            lasted = since is None or ended is None or to >= BEGAN + since * SECOND
            if one.after and lasted and (until is None or one.time < BEGAN + until * SECOND):
                expected.append((one.position, ended.position if ended else 0, to - one.time))
            ended = one
        name = story.names[origin]
        assert all_pages(lambda token, name=name, alias=alias: page(name, alias, token)) == expected  # type: ignore[misc]


def test_an_alias_that_was_never_set_has_no_intervals(story: Story) -> None:
    request = v1.ListAliasIntervalsRequest(model="c1", alias="nobody")
    with pytest.raises(Rejected) as refused:
        story.rows.ask(lambda connection: aliases.list_intervals(connection, request, 0))
    assert refused.value.reason == "ALIAS_NOT_FOUND"


@pytest.mark.parametrize(
    ("model", "alias", "tags"),
    [("", "", {}), ("a40", "", {}), ("a", "champion", {}), ("", "prod-eu", {"team": "risk"}), ("nobody", "", {})],
)
def test_snapshots(story: Story, model: str, alias: str, tags: dict[str, str]) -> None:
    found, position = story.rows.ask(lambda connection: aliases.snapshot(connection, model, alias, tags))
    assert position == story.rows.position
    expected = {
        (story.names[origin], name, story.held(origin, name))
        for origin, name in story.aliases()
        if story.held(origin, name)
        and (not model or model in {origin, story.names[origin]})
        and alias in {"", name}
        and (not tags or origin < "c")
    }
    assert {(one.model, one.alias, one.version) for one in found} == expected
    assert len(found) == len(expected)
