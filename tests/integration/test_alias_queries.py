"""Questions about aliases, now and in the past: the rows of both databases say what a list of all changes says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore.errors import Rejected
from rollforward import v1
from services.registry import alias_queries
from tests.integration.registry_rows import BEGAN, SECOND, RegistryRows, all_pages, digest, registry_rows

MODELS = ["a", "b*", "c[1]", "c1"]
ALIASES = ["champion", "prod-eu", "prod-us"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an alias."""

    position: int
    revision: int
    time: int
    origin: str
    alias: str
    before: int
    after: int
    actor: str


class Story:
    """Random moves and removals, alone and several in one append, of models of which one gets other names."""

    def __init__(self, rows: RegistryRows) -> None:
        self.rows = rows
        self.names = {origin: origin for origin in MODELS}
        self.changes: list[Change] = []
        self._chance = random.Random(7)
        for origin in MODELS:
            rows.create(origin, **({"team": "risk"} if origin < "c" else {}))
            for _ in range(3):
                rows.register(origin)
        for step in range(60):
            self._step(step)

    def _step(self, step: int) -> None:
        if step in {20, 40}:
            self.rows.rename(self.names["a"], f"a{step}")
            self.names["a"] = f"a{step}"
            return
        keys = self._chance.sample([(origin, alias) for origin in MODELS for alias in ALIASES], step % 3 + 1)
        actor = self._chance.choice(["Zoë", "Max"])
        begun, time = self.rows.position, BEGAN + self.rows.appends * SECOND
        facts = []
        for origin, alias in keys:
            before = self.held(origin, alias)
            after = self._chance.choice([version for version in (0, 1, 2, 3) if version != before])
            facts.append(self.rows.moved(self.names[origin], alias, after))
            at, end = begun + len(facts), begun + len(keys)
            self.changes.append(Change(at, end, time, origin, alias, before, after, actor))
        self.rows.append(*facts, actor=actor)

    def held(self, origin: str, alias: str) -> int:
        """The version that holds an alias; 0 for none."""
        return next((one.after for one in self.of(origin, alias)), 0)

    def of(self, origin: str, alias: str) -> list[Change]:
        """The changes of an alias, newest first."""
        return [one for one in reversed(self.changes) if (one.origin, one.alias) == (origin, alias)]

    def keys(self) -> list[tuple[str, str]]:
        """All aliases that ever were set."""
        return sorted({(one.origin, one.alias) for one in self.changes})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The story, told to a database."""
    if request.param == "sqlite":
        with registry_rows(str(tmp_path_factory.mktemp("rows"))) as rows:
            yield Story(rows)
    else:
        with request.getfixturevalue("postgres").database() as url, registry_rows(url) as rows:
            yield Story(rows)


@pytest.fixture(params=["sqlite", "postgresql"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryRows]:
    """Empty rows."""
    where = request.getfixturevalue("postgres_url") if request.param == "postgresql" else str(tmp_path)
    with registry_rows(where) as found:
        yield found


def at(time_ns: int) -> Timestamp:
    """A time."""
    result = Timestamp()
    result.FromNanoseconds(time_ns)
    return result


def test_every_alias_at_every_position(story: Story) -> None:
    def answers(rows: sa.Connection) -> None:
        for position in range(story.rows.position + 1):
            for origin in MODELS:
                for alias in ALIASES:
                    past = [one for one in story.of(origin, alias) if one.revision <= position]
                    found = alias_queries.assignment(rows, story.names[origin], alias, position)
                    expected = (past[0].after, past[0].revision) if past else (0, 0)
                    assert (found.version, found.revision) == expected
                    assert found.model == story.names[origin]

    story.rows.ask(answers)


def test_resolving_now_and_then_names_position_and_time(story: Story) -> None:
    def answers(rows: sa.Connection) -> None:
        for origin, alias in story.keys():
            for position in (None, 30, 60, story.rows.position):
                past = [one for one in story.of(origin, alias) if position is None or one.revision <= position]
                if past and past[0].after:
                    found = alias_queries.resolve(rows, story.names[origin], alias, position)
                    assert (found.alias.version, found.alias.revision) == (past[0].after, past[0].revision)
                    assert found.alias.digest == digest(past[0].after)
                    assert found.position == (story.rows.position if position is None else position)
                    assert BEGAN <= found.time.ToNanoseconds() <= BEGAN + story.rows.appends * SECOND
                else:
                    with pytest.raises(Rejected) as refused:
                        alias_queries.resolve(rows, story.names[origin], alias, position)
                    assert refused.value.reason == "ALIAS_NOT_FOUND"
        now = [alias_queries.resolve(rows, "c1", alias) for alias in ALIASES if story.held("c1", alias)]
        assert {one.time.ToNanoseconds() for one in now} == {BEGAN + (story.rows.appends - 1) * SECOND}

    story.rows.ask(answers)


@pytest.mark.parametrize(("model", "reason"), [("nobody", "MODEL_NOT_FOUND"), ("a", "MODEL_RENAMED")])
def test_a_model_that_is_not_called_so_is_refused(story: Story, model: str, reason: str) -> None:
    asked = [
        lambda rows: alias_queries.resolve(rows, model, "champion"),
        lambda rows: alias_queries.resolve(rows, model, "champion", 30),
        lambda rows: alias_queries.resolve_aliases(rows, v1.ResolveAliasesRequest(model=model)),
        lambda rows: alias_queries.list_history(rows, v1.ListAliasHistoryRequest(model=model)),
        lambda rows: alias_queries.list_intervals(rows, v1.ListAliasIntervalsRequest(model=model), 0),
        lambda rows: alias_queries.list_schedules(rows, v1.ListSchedulesRequest(model=model)),
    ]
    for question in asked:
        with pytest.raises(Rejected) as refused:
            story.rows.ask(question)
        assert refused.value.reason == reason


@pytest.mark.parametrize("position", [None, 0, 25, 47, 90])
@pytest.mark.parametrize("model", ["", "a40"])
def test_all_aliases_as_of_a_position(story: Story, position: int | None, model: str) -> None:
    def page(token: str) -> tuple[list[v1.Alias], str]:
        request = v1.ResolveAliasesRequest(model=model, page_size=2, page_token=token)
        found = story.rows.ask(lambda rows: alias_queries.resolve_aliases(rows, request, position))
        assert found.position == (story.rows.position if position is None else position)
        return list(found.aliases), found.next_page_token

    expected = []
    for origin, alias in story.keys():
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
        found = rows.ask(lambda connection: alias_queries.resolve_aliases(connection, request))
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
        v1.ListAliasHistoryRequest(model="c1", actor="Max", until=at(BEGAN + 60 * SECOND), cause=v1.ALIAS_CAUSE_REQUEST),
    ],
    ids=str,
)
def test_history_by_every_condition(story: Story, asked: v1.ListAliasHistoryRequest) -> None:
    def page(token: str) -> tuple[list[int], str]:
        request = v1.ListAliasHistoryRequest(page_size=7, page_token=token)
        request.MergeFrom(asked)
        found = story.rows.ask(lambda rows: alias_queries.list_history(rows, request))
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
    found = story.rows.ask(lambda rows: alias_queries.list_history(rows, request))
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
        found = story.rows.ask(lambda rows: alias_queries.list_intervals(rows, request, now))
        told = [
            (one.began.position, one.ended.position if one.HasField("ended") else 0, one.duration.ToNanoseconds())
            for one in found.intervals
        ]
        return told, found.next_page_token

    for origin, alias in story.keys():
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
    with pytest.raises(Rejected) as refused:
        request = v1.ListAliasIntervalsRequest(model="c1", alias="nobody")
        story.rows.ask(lambda rows: alias_queries.list_intervals(rows, request, 0))
    assert refused.value.reason == "ALIAS_NOT_FOUND"


@pytest.mark.parametrize(
    ("model", "alias", "tags"),
    [("", "", {}), ("a40", "", {}), ("a", "champion", {}), ("", "prod-eu", {"team": "risk"}), ("nobody", "", {})],
)
def test_snapshots(story: Story, model: str, alias: str, tags: dict[str, str]) -> None:
    found, position = story.rows.ask(lambda rows: alias_queries.snapshot(rows, model, alias, tags))
    assert position == story.rows.position
    expected = {
        (story.names[origin], name, story.held(origin, name))
        for origin, name in story.keys()
        if story.held(origin, name)
        and (not model or model in {origin, story.names[origin]})
        and alias in {"", name}
        and (not tags or origin < "c")
    }
    assert {(one.model, one.alias, one.version) for one in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("pattern", ["*", "a*", "c1", "c[1]", "c[!2]*", "?*", "b*", "nobody", "[a-b]*", ""])
@pytest.mark.parametrize("alias", ["*", "prod-*", "champion", "prod-[!u]*"])
def test_what_patterns_take_in(story: Story, pattern: str, alias: str) -> None:
    found = story.rows.ask(lambda rows: alias_queries.assignments_in(rows, pattern, alias))
    expected = [
        (origin, story.names[origin], name, story.held(origin, name), story.of(origin, name)[0].revision)
        for origin, name in sorted(story.keys(), key=lambda key: (story.names[key[0]], key[1]))
        if (pattern == story.names[origin] or fnmatchcase(story.names[origin], pattern))
        and fnmatchcase(name, alias)
    ]
    assert [(one.origin, one.model, one.alias, one.version, one.revision) for one in found] == expected
    for one in found:
        assert one.digest == (digest(one.version) if one.version else "")
        assert one.position == story.of(one.origin, one.alias)[0].position
        assert one.model_deleted is False


def test_an_append_expects_the_last_event_of_its_stream(rows: RegistryRows) -> None:
    rows.create("a")
    rows.create("b")
    rows.register("a")
    rows.register("b")
    rows.append(rows.moved("a", "champion", 1), rows.moved("b", "champion", 1))
    rows.append(v1.VersionRefused(model="b"))
    found = rows.ask(lambda connection: alias_queries.assignments_in(connection, "*", "*"))
    assert [(one.model, one.position, one.revision, one.stream_revision) for one in found] == [
        ("a", 5, 6, 5),
        ("b", 6, 6, 7),
    ]


def test_what_held_before(story: Story) -> None:
    keys = story.keys()
    found = story.rows.ask(lambda rows: alias_queries.previous_holders(rows, keys))
    for key in keys:
        now = story.held(*key)
        before = next((one for one in story.of(*key) if one.after not in {0, now}), None)
        assert (found[key].position if key in found else None) == (before.position if before else None)


@pytest.mark.parametrize("position", [0, 13, 31, 60, 10_000])
def test_assignments_at(story: Story, position: int) -> None:
    keys = story.keys()
    found = story.rows.ask(lambda rows: alias_queries.assignments_at(rows, keys, position))
    expected = {
        key: next((one.position for one in story.of(*key) if one.revision <= position), None) for key in keys
    }
    assert {key: change.position for key, change in found.items()} == {
        key: at for key, at in expected.items() if at is not None
    }


def test_when_a_version_last_stopped_holding(story: Story) -> None:
    for version in (1, 2, 3):
        asked = dict.fromkeys(story.keys(), version)
        found = story.rows.ask(lambda rows, asked=asked: alias_queries.last_held(rows, asked))  # type: ignore[misc]
        expected = {key: [one.time for one in story.of(*key) if one.before == version][:1] for key in asked}
        assert found == {key: times[0] for key, times in expected.items() if times}


def test_what_is_known_of_versions(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a", "f" * 32)
    rows.register("a")
    rows.append(v1.VersionDeleted(model="a", version=2))
    rows.append(v1.VersionStatusChanged(model="a", version=1, to_status=v1.VERSION_STATUS_PENDING))
    keys = [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    assert rows.ask(lambda connection: alias_queries.versions_of(connection, keys)) == {
        ("a", 1): (digest(1), False, v1.VERSION_STATUS_PENDING, "f" * 32),
        ("a", 2): (digest(2), True, v1.VERSION_STATUS_READY, ""),
    }


def test_before_an_event_is_before_its_append(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    rows.append(rows.moved("a", "x", 1), rows.moved("a", "y", 1))
    rows.move("a", "z", 1)
    found = [rows.ask(lambda one, at=at: alias_queries.event_position(one, f"event-{at}")) for at in range(1, 7)]  # type: ignore[misc]
    assert found == [0, 1, 2, 2, 4, None]


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
        found = rows.ask(lambda connection: alias_queries.list_schedules(connection, request))
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
    ends = rows.append(v1.AliasMoved(model="a", alias="x", to_version=1, expires_at=at(150)), actor="Zoë", reason="short")

    def due(now: int) -> tuple[list[tuple[int, str, int, str, str, str]], int | None]:
        found, following = rows.ask(lambda connection: alias_queries.due(connection, now))
        return [(one.at, one.alias, one.revision, one.actor, one.reason, one.event_id) for one in found], following

    scheduled_first = (100, "champion", 0, "Max", "later", "event-3")
    assert due(99) == ([], 100)
    assert due(100) == ([scheduled_first], 150)
    assert due(199) == ([scheduled_first, (150, "x", ends, "Zoë", "short", f"event-{ends}")], 200)
    rows.append(v1.AliasMoved(model="a", alias="x", from_version=1, to_version=2))
    assert due(199) == ([scheduled_first], 200)
    assert due(500)[1] is None


def test_policies_as_they_stand(rows: RegistryRows) -> None:
    assert rows.ask(alias_queries.policies) == v1.ListPoliciesResponse()
    first, second = (v1.Policy(name=name, models="*", reason_required=True) for name in "ba")
    rows.append(v1.PolicySet(to=first))
    rows.append(v1.PolicySet(to=second))
    changed = v1.Policy(name="b", models="x", reason_required=True)
    rows.append(v1.PolicySet(to=changed))
    assert list(rows.ask(alias_queries.policies).policies) == [second, changed]
    rows.append(v1.PolicyRemoved(policy=second))
    assert rows.ask(alias_queries.policies) == v1.ListPoliciesResponse(policies=[changed], revision=rows.position)


def test_what_is_kept_in_memory(story: Story) -> None:
    live = story.rows.ask(alias_queries.live_rows)
    assert (live.position, live.time) == (story.rows.position, BEGAN + (story.rows.appends - 1) * SECOND)
    assert live.names == {origin: origin for origin in MODELS} | {"a20": "a", "a40": "a"}
    assert live.current == story.names
    assert {key: change.position for key, change in live.changes.items()} == {
        key: story.of(*key)[0].position for key in story.keys()
    }
    assert live.tags == {"a": {"team": "risk"}, "b*": {"team": "risk"}}
