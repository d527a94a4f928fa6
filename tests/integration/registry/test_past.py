"""What rollbacks are planned from: of many aliases at once, rows say what a list of all changes says."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from rollforward import v1
from services.registry.queries import rollback
from tests.integration.registry.alias_story import Story, told_story
from tests.integration.registry.registry_rows import RegistryRows, digest, registry_rows


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


@pytest.mark.parametrize(
    "pattern", ["*", "a*", "c1", "c[1]", "c[[]1]", "c[!2]*", "?*", "b*", "b[*]", "nobody", "[a-b]*", ""]
)
@pytest.mark.parametrize("alias", ["*", "prod-*", "champion", "prod-[!u]*"])
def test_what_patterns_take_in(story: Story, pattern: str, alias: str) -> None:
    found = story.rows.ask(lambda connection: rollback.assignments_in(connection, pattern, alias))
    expected = [
        (origin, story.names[origin], name, story.held(origin, name), story.of(origin, name)[0].revision)
        for origin, name in sorted(story.aliases(), key=lambda key: (story.names[key[0]], key[1]))
        if fnmatchcase(story.names[origin], pattern) and fnmatchcase(name, alias)
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
    found = rows.ask(lambda connection: rollback.assignments_in(connection, "*", "*"))
    assert [(one.model, one.position, one.revision, one.stream_revision) for one in found] == [
        ("a", 5, 6, 5),
        ("b", 6, 6, 7),
    ]


def test_what_held_before(story: Story) -> None:
    keys = story.aliases()
    found = story.rows.ask(lambda connection: rollback.previous_holders(connection, keys))
    for key in keys:
        now = story.held(*key)
        before = next((one for one in story.of(*key) if one.after not in {0, now}), None)
        assert (found[key].position if key in found else None) == (before.position if before else None)


@pytest.mark.parametrize("position", [0, 13, 31, 60, 10_000])
def test_assignments_at(story: Story, position: int) -> None:
    keys = story.aliases()
    found = story.rows.ask(lambda connection: rollback.assignments_at(connection, keys, position))
    expected = {key: next((one.position for one in story.of(*key) if one.revision <= position), None) for key in keys}
    assert {key: change.position for key, change in found.items()} == {
        key: at for key, at in expected.items() if at is not None
    }


def test_when_a_version_last_stopped_holding(story: Story) -> None:
    for version in (1, 2, 3):
        asked = dict.fromkeys(story.aliases(), version)
        found = story.rows.ask(lambda rows, asked=asked: rollback.last_assigned(rows, asked))  # type: ignore[misc]
        expected = {key: [one.time for one in story.of(*key) if one.before == version][:1] for key in asked}
        assert found == {key: times[0] for key, times in expected.items() if times}


def test_what_is_known_of_versions(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a", "f" * 32)
    rows.register("a")
    rows.append(v1.VersionDeleted(model="a", version=2))
    rows.append(v1.VersionStatusChanged(model="a", version=1, to_status=v1.VERSION_STATUS_PENDING))
    keys = [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    assert rows.ask(lambda connection: rollback.versions_of(connection, keys)) == {
        ("a", 1): (digest(1), False, v1.VERSION_STATUS_PENDING, "f" * 32),
        ("a", 2): (digest(2), True, v1.VERSION_STATUS_READY, ""),
    }


def test_before_an_event_is_before_its_append(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    rows.append(rows.moved("a", "x", 1), rows.moved("a", "y", 1))
    rows.move("a", "z", 1)
    found = [rows.ask(lambda one, at=at: rollback.event_position(one, f"event-{at}")) for at in range(1, 7)]  # type: ignore[misc]
    assert found == [0, 1, 2, 2, 4, None]
