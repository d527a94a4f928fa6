"""The rows that rollbacks are planned from agree with a list of all changes."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import sqlalchemy as sa

from rollforward import v1
from services.registry.queries import rollback
from tests.integration.registry.alias_scenario import AliasScenario, run_scenario
from tests.integration.registry.registry_rows import RegistryRows, digest, registry_rows


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


@pytest.mark.parametrize(
    "pattern", ["*", "a*", "c1", "c[1]", "c[[]1]", "c[!2]*", "?*", "b*", "b[*]", "nobody", "[a-b]*", ""]
)
@pytest.mark.parametrize("alias", ["*", "prod-*", "champion", "prod-[!u]*"])
def test_patterns_select_assignments(scenario: AliasScenario, pattern: str, alias: str) -> None:
    found = scenario.rows.query(lambda connection: rollback.assignments_in(connection, pattern, alias))
    expected = [
        (origin, scenario.names[origin], name, scenario.current(origin, name), scenario.of(origin, name)[0].revision)
        for origin, name in sorted(scenario.aliases(), key=lambda key: (scenario.names[key[0]], key[1]))
        if fnmatchcase(scenario.names[origin], pattern) and fnmatchcase(name, alias)
    ]
    assert [
        (assignment.origin, assignment.model, assignment.alias, assignment.version, assignment.revision)
        for assignment in found
    ] == expected
    for assignment in found:
        assert assignment.digest == (digest(assignment.version) if assignment.version else "")
        assert assignment.position == scenario.of(assignment.origin, assignment.alias)[0].position
        assert assignment.model_deleted is False


def test_assignment_has_last_revision_of_its_stream(rows: RegistryRows) -> None:
    rows.create("a")
    rows.create("b")
    rows.register("a")
    rows.register("b")
    rows.append(rows.moved("a", "champion", 1), rows.moved("b", "champion", 1))
    rows.append(v1.VersionRefused(model="b"))
    found = rows.query(lambda connection: rollback.assignments_in(connection, "*", "*"))
    assert [
        (assignment.model, assignment.position, assignment.revision, assignment.stream_revision) for assignment in found
    ] == [
        ("a", 5, 6, 5),
        ("b", 6, 6, 7),
    ]


def test_previous_version_is_found(scenario: AliasScenario) -> None:
    keys = scenario.aliases()
    found = scenario.rows.query(lambda connection: rollback.previous_holders(connection, keys))
    for key in keys:
        now = scenario.current(*key)
        before = next((change for change in scenario.of(*key) if change.after not in {0, now}), None)
        assert (found[key].position if key in found else None) == (before.position if before else None)


@pytest.mark.parametrize("position", [0, 13, 31, 60, 10_000])
def test_assignments_at_position(scenario: AliasScenario, position: int) -> None:
    keys = scenario.aliases()
    found = scenario.rows.query(lambda connection: rollback.assignments_at(connection, keys, position))
    expected = {
        key: next((change.position for change in scenario.of(*key) if change.revision <= position), None)
        for key in keys
    }
    assert {key: change.position for key, change in found.items()} == {
        key: at for key, at in expected.items() if at is not None
    }


def test_time_of_last_assignment_is_found(scenario: AliasScenario) -> None:
    for version in (1, 2, 3):
        wanted = dict.fromkeys(scenario.aliases(), version)
        found = scenario.rows.query(lambda rows, wanted=wanted: rollback.last_assigned(rows, wanted))  # type: ignore[misc]
        expected = {
            key: [change.time for change in scenario.of(*key) if change.before == version][:1] for key in wanted
        }
        assert found == {key: times[0] for key, times in expected.items() if times}


def test_version_details_are_read(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a", "f" * 32)
    rows.register("a")
    rows.append(v1.VersionDeleted(model="a", version=2))
    rows.append(v1.VersionStatusChanged(model="a", version=1, to_status=v1.VERSION_STATUS_PENDING))
    keys = [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    assert rows.query(lambda connection: rollback.versions_of(connection, keys)) == {
        ("a", 1): (digest(1), False, v1.VERSION_STATUS_PENDING, "f" * 32),
        ("a", 2): (digest(2), True, v1.VERSION_STATUS_READY, ""),
    }


def test_position_before_event_is_before_its_append(rows: RegistryRows) -> None:
    rows.create("a")
    rows.register("a")
    rows.append(rows.moved("a", "x", 1), rows.moved("a", "y", 1))
    rows.move("a", "z", 1)

    def positions(connection: sa.Connection) -> list[int | None]:
        return [rollback.event_position(connection, f"event-{at}") for at in range(1, 7)]

    assert rows.query(positions) == [0, 1, 2, 2, 4, None]
