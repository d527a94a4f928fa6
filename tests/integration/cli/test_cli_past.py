"""The commands for the history of aliases, and for several aliases at once."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import rollforward as rf
from tests.e2e.program import until
from tests.integration.cli.command_line import SCRIPT, TIME, Cli, SampleData, answer, done, environment, refused
from tests.integration.up import Up, new_id


@pytest.fixture
def pair(system: Up) -> tuple[str, str]:
    """Create two models with two versions each; return their champion aliases."""
    digest, family = system.upload(), f"family-{new_id()[:8]}"
    with rf.Client(system.address) as client:
        for name in ("a", "b"):
            for _ in range(2):
                client.versions.register(f"{family}-{name}", digest=digest)
    return f"{family}-a@champion", f"{family}-b@champion"


def cli_time(moment: datetime) -> str:
    """Return a time as the command line accepts it."""
    return moment.astimezone(UTC).isoformat()


def test_release_set_moves_at_one_revision_or_fails_as_a_whole(cli: Cli, pair: tuple[str, str]) -> None:
    first, second = pair
    moved = answer(cli("aliases", "move", f"{first}=1", f"{second}=v2", "--reason", "together", "-o", "json"))
    assert [(one["model"], one["version"]) for one in moved] == [
        (first.partition("@")[0], 1),
        (second.partition("@")[0], 2),
    ]
    (revision,) = {one["revision"] for one in moved}
    wrong = cli("aliases", "move", f"{first}=2", f"{second}=1", "--expect", f"{second}={revision - 1}")
    assert refused(wrong) == "WRONG_REVISION"
    assert answer(cli("aliases", "get", first, "-o", "json"))["version"] == 1
    right = ("--expect", f"{first}={revision}", "--expect", f"{second}={revision}")
    table = done(cli("aliases", "move", f"{first}=2", f"{second}=1", *right))
    assert re.search(rf"^{re.escape(first)} +v2 ", table, re.MULTILINE)
    assert refused(cli("aliases", "move", f"{first}=1", f"{second}=9")) == "VERSION_NOT_FOUND"


def test_single_target_is_a_plain_move(cli: Cli, alias: str) -> None:
    moved = answer(cli("aliases", "move", f"{alias}=1", "--expect-revision", "0", "-o", "json"))
    assert moved["version"] == 1


def test_aliases_are_listed_as_of_a_point_that_is_shown(cli: Cli, pair: tuple[str, str]) -> None:
    first, second = pair
    model = first.partition("@")[0]
    revision = answer(cli("aliases", "move", f"{first}=1", f"{second}=1", "-o", "json"))[0]["revision"]
    later = answer(cli("aliases", "move", first, "2", "-o", "json"))
    (then,) = answer(cli("aliases", "list", model, "--at", str(revision), "-o", "json"))
    assert (then["alias"], then["version"], then["as_of_position"]) == ("champion", 1, revision)
    everywhere = answer(cli("aliases", "list", "--at", str(later["revision"]), "-o", "json"))
    assert {(f"{one['model']}@{one['alias']}", one["version"]) for one in everywhere} >= {(first, 2), (second, 1)}
    assert answer(cli("aliases", "get", first, "--at", str(revision), "-o", "json")) == then
    assert f"position {revision}, " in done(cli("aliases", "get", first, "--at", str(revision)))
    assert f"as of position {revision}, " in done(cli("aliases", "list", model, "--at", str(revision)))


def test_intervals_have_start_end_and_duration(cli: Cli, alias: str) -> None:
    for version in ("1", "2", "1"):
        done(cli("aliases", "move", alias, version))
    done(cli("aliases", "remove", alias))
    found = answer(cli("aliases", "intervals", alias, "-o", "json"))
    assert [one["version"] for one in found] == [1, 2, 1]
    assert [one["next_version"] for one in found] == [None, 1, 2]
    assert all(one["duration_seconds"] >= 0 for one in found)
    table = done(cli("aliases", "intervals", alias))
    assert len(table.splitlines()) == 4
    assert TIME.search(table)
    done(cli("aliases", "move", alias, "2"))
    assert answer(cli("aliases", "intervals", alias, "--limit", "1", "-o", "json"))[0]["ended_at"] is None


def test_history_is_filtered_by_cause_actor_and_kind(cli: Cli, alias: str) -> None:
    done(cli("aliases", "move", alias, "1", "--actor", "Ada"))
    done(cli("aliases", "move", alias, "2", "--actor", "Zoë"))
    done(cli("rollback", alias, "--actor", "Ada"))
    done(cli("aliases", "remove", alias, "--actor", "Zoë"))

    def versions(*where: str) -> list[int | None]:
        return [one["to_version"] for one in answer(cli("aliases", "history", alias, *where, "-o", "json"))]

    assert versions() == [None, 1, 2, 1]
    assert versions("--actor", "Ada") == [1, 1]
    assert versions("--cause", "rollback") == [1]
    assert versions("--removals") == [None]
    assert versions("--moves", "--actor", "Zoë") == [2]
    times = [one["time"] for one in answer(cli("aliases", "history", alias, "-o", "json"))]
    assert versions("--since", times[1]) == [None, 1]
    assert versions("--until", times[1]) == [2, 1]
    label = alias.partition("@")[2]
    everywhere = answer(cli("aliases", "history", f"@{label}", "-o", "json"))
    assert [one["to_version"] for one in everywhere] == versions()


def test_blame_shows_the_change_the_version_and_the_run(cli: Cli, sample: SampleData, alias: str) -> None:
    first = answer(cli("aliases", "move", alias, "1", "--reason", "the first", "--actor", "Zoë", "-o", "json"))
    done(cli("aliases", "move", alias, "2", "--reason", "better"))
    found = answer(cli("blame", alias, "-o", "json"))
    assert (found["alias"]["version"], found["change"]["reason"], found["change"]["from_version"]) == (2, "better", 1)
    assert (found["version"]["version"], found["run"]["run_id"]) == (2, sample.runs[1])
    then = answer(cli("blame", alias, "--at", str(first["revision"]), "-o", "json"))
    assert (then["change"]["actor"], then["run"]["run_id"]) == ("Zoë", sample.runs[0])
    table = done(cli("blame", alias))
    assert re.search(r"^reason +better$", table, re.MULTILINE)
    assert re.search(r"^metrics +accuracy=0\.99 ", table, re.MULTILINE)
    assert refused(cli("blame", f"{sample.model}@nothing")) == "ALIAS_NOT_FOUND"


def test_versions_diff_has_files_and_logged_values(cli: Cli, sample: SampleData) -> None:
    found = answer(cli("versions", "diff", sample.model, "v1", "v2", "-o", "json"))
    differences = {(one["kind"], one["key"]): (one["from"], one["to"]) for one in found}
    # Both have the same files, the same depth, and a loss of NaN.
    assert differences == {
        ("run", None): sample.runs,
        ("param", "name"): ("first", "second"),
        ("metric", "accuracy"): (0.96, 0.99),
    }
    table = done(cli("versions", "diff", sample.model, "1", "2"))
    assert re.search(r"^metric +accuracy +0\.96 +0\.99$", table, re.MULTILINE)


def test_versions_diff_has_files_and_size(cli: Cli, sample: SampleData, tmp_path: Path) -> None:
    name = f"files-{new_id()}"
    (tmp_path / "weights.bin").write_bytes(b"smaller")
    for path in (sample.files, tmp_path):
        done(cli("models", "register", name, str(path)))
    found = answer(cli("versions", "diff", name, "1", "2", "-o", "json"))
    assert [(one["kind"], one["key"]) for one in found] == [
        ("digest", None),
        ("size", None),
        ("file", "labels.json"),
        ("file", "weights.bin"),
    ]
    assert (found[1]["to"], found[2]["to"]) == (7, None)


def test_diff_lists_assignments_that_differ_between_two_points(cli: Cli, pair: tuple[str, str]) -> None:
    first, second = pair
    begun = answer(cli("aliases", "move", f"{first}=1", f"{second}=1", "-o", "json"))[0]["revision"]
    done(cli("aliases", "move", first, "2", "--reason", "better"))
    for version in ("2", "1"):
        done(cli("aliases", "move", second, version))
    model = first.partition("@")[0]
    found = answer(cli("diff", model, "--from", str(begun), "-o", "json"))
    assert [(one["from_version"], one["to_version"], one["from_position"]) for one in found] == [(1, 2, begun)]
    everything = answer(cli("diff", "--from", str(begun - 1), "--to", str(begun), "-o", "json"))
    assert [(f"{one['model']}@{one['alias']}", one["from_version"], one["to_version"]) for one in everything] == [
        (first, None, 1),
        (second, None, 1),
    ]
    # The second alias was moved away and back.
    everything = answer(cli("diff", "--from", str(begun), "-o", "json"))
    assert [one["model"] for one in everything if one["model"] in {model, second.partition("@")[0]}] == [model]
    assert "better" in done(cli("diff", model, "--from", str(begun)))


def test_diff_of_a_revision_lists_the_changes_of_a_move(cli: Cli, sample: SampleData, alias: str) -> None:
    first = answer(cli("aliases", "move", alias, "1", "-o", "json"))
    second = answer(cli("aliases", "move", alias, "2", "--reason", "better", "-o", "json"))
    (moved,) = answer(cli("diff", "--revision", str(second["revision"]), "-o", "json"))
    assert (moved["reason"], moved["to_run_id"]) == ("better", sample.runs[1])
    assert [one["key"] for one in moved["differences"] if one["kind"] == "metric"] == ["accuracy"]
    (begun,) = answer(cli("diff", "--revision", str(first["revision"]), "-o", "json"))
    assert begun["from_version"] is None
    table = done(cli("diff", "--revision", str(second["revision"])))
    assert re.search(rf"{re.escape(alias)} +v1 +v2 ", table)
    registered = answer(cli("models", "show", sample.model, "-o", "json"))["versions"][0]["revision"]
    assert refused(cli("diff", "--revision", str(registered))) == "CHANGE_NOT_FOUND"


def test_diff_of_a_revision_finds_a_renamed_model(cli: Cli, pair: tuple[str, str]) -> None:
    moved = answer(cli("aliases", "move", *(f"{one}=1" for one in pair), "-o", "json"))
    model = pair[0].partition("@")[0]
    done(cli("models", "rename", model, f"{model}-renamed"))
    found = answer(cli("diff", "--revision", str(moved[0]["revision"]), "-o", "json"))
    assert {one["model"] for one in found} >= {pair[1].partition("@")[0]}
    assert len(found) == 2


def test_dry_run_prints_the_changes_and_the_command_to_apply_them(cli: Cli, pair: tuple[str, str]) -> None:
    begun = answer(cli("aliases", "move", *(f"{one}=1" for one in pair), "-o", "json"))[0]["revision"]
    done(cli("aliases", "move", *(f"{one}=2" for one in pair)))
    scope = re.sub(r"-[ab]@", "-*@", pair[0])
    arguments = ("rollback", scope, "--to", str(begun), "--reason", "it's worse", "--dry-run")
    dry = answer(cli(*arguments, "-o", "json"))
    assert [(one["from_version"], one["to_version"]) for one in dry["changes"]] == [(2, 1), (2, 1)]
    assert (dry["revision"], dry["to_position"]) == (0, begun)
    table = done(cli(*arguments))
    assert [answer(cli("aliases", "get", one, "-o", "json"))["version"] for one in pair] == [2, 2]
    for one in pair:
        assert re.search(rf"^{re.escape(one)} +v2 +v1 ", table, re.MULTILINE)
    command = shlex.split(table.splitlines()[-1])
    assert command[0] == "rollforward"
    assert command[-2:] == ["--expect-position", str(dry["computed_at"])]
    back = answer(cli(*command[1:], "-o", "json"))
    assert back["changes"] == dry["changes"]
    assert {answer(cli("aliases", "get", one, "-o", "json"))["revision"] for one in pair} == {back["revision"]}
    assert answer(cli("aliases", "history", pair[0], "--limit", "1", "-o", "json"))[0]["reason"] == "it's worse"
    result = cli(*command[1:])
    assert refused(result) == "CHANGED_SINCE"
    assert "--dry-run" in result.stderr


def test_rollback_to_before_an_event(cli: Cli, alias: str) -> None:
    for version in ("1", "2", "1"):
        done(cli("aliases", "move", alias, version))
    second = answer(cli("aliases", "history", alias, "-o", "json"))[1]
    done(cli("rollback", alias, "--before-event", second["event_id"]))
    assert answer(cli("aliases", "get", alias, "-o", "json"))["version"] == 1
    assert refused(cli("rollback", alias, "--before-event", "nothing")) == "EVENT_NOT_FOUND"
    assert refused(cli("rollback", alias, "--before-event", "x", "--to", "3"), 2) == "INVALID_AS_OF"


def test_rollback_to_a_deleted_version_is_rejected_or_skipped(cli: Cli, pair: tuple[str, str]) -> None:
    begun = answer(cli("aliases", "move", *(f"{one}=1" for one in pair), "-o", "json"))[0]["revision"]
    done(cli("aliases", "move", *(f"{one}=2" for one in pair)))
    gone, kept = (one.partition("@")[0] for one in pair)
    done(cli("versions", "delete", gone, "v1"))
    arguments = ("rollback", gone[:-1] + "*", "--to", str(begun))
    result = cli(*arguments)
    assert refused(result) == "VERSION_DELETED"
    assert "versions restore" in result.stderr
    found = answer(cli(*arguments, "--skip-missing", "-o", "json"))["changes"]
    assert {one["model"]: one["skipped"] for one in found} == {gone: True, kept: False}
    assert answer(cli("aliases", "get", pair[1], "-o", "json"))["version"] == 1
    assert answer(cli("aliases", "get", pair[0], "-o", "json"))["version"] == 2


def test_scheduled_move_can_be_listed_and_cancelled_or_is_made(cli: Cli, alias: str) -> None:
    model = alias.partition("@")[0]
    later = cli_time(datetime.now(UTC) + timedelta(days=1))
    arguments = ("schedules", "create", alias, "v1")
    made = answer(cli(*arguments, "--at", later, "--reason", "at night", "--expect-revision", "0", "-o", "json"))
    assert (made["version"], made["reason"], made["expected_revision"]) == (1, "at night", 0)
    listed = answer(cli("schedules", "list", model, "-o", "json"))
    assert made["schedule_id"] in {one["schedule_id"] for one in listed}
    assert made["schedule_id"][:12] in done(cli("schedules", "list"))
    left = answer(cli("schedules", "cancel", model, made["schedule_id"], "--reason", "not now", "-o", "json"))
    assert made["schedule_id"] not in {one["schedule_id"] for one in left}
    assert refused(cli("schedules", "cancel", model, made["schedule_id"])) == "SCHEDULE_NOT_FOUND"
    # Relative, because a time that has passed would be rejected.
    now = answer(cli(*arguments, "--at", "10s", "-o", "json"))

    def moved() -> bool:
        return bool(answer(cli("aliases", "history", alias, "--cause", "schedule", "-o", "json")))

    until(moved, "the scheduled move")
    (change,) = answer(cli("aliases", "history", alias, "-o", "json"))
    assert (change["to_version"], change["schedule_id"]) == (1, now["schedule_id"])


def test_expired_assignment_is_removed(cli: Cli, alias: str) -> None:
    # As above.
    moved = answer(cli("aliases", "move", alias, "1", "--expires-at", "10s", "-o", "json"))
    assert moved["expires_at"] is not None

    def gone() -> bool:
        return cli("aliases", "get", alias).returncode == 1

    until(gone, "the end of the assignment")
    change = answer(cli("aliases", "history", alias, "--limit", "1", "-o", "json"))[0]
    assert (change["to_version"], change["cause"]) == (None, "expiry")


def test_watch_filters_by_alias_and_tag(cli: Cli, pair: tuple[str, str], system: Up) -> None:
    first, second = pair
    done(cli("models", "tag", first.partition("@")[0], f"team={first}"))
    command = [str(SCRIPT), "watch", "@champion", "--tag", f"team={first}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(ROLLFORWARD_URI=system.address)
    ) as watch:
        assert watch.stdout is not None
        done(cli("aliases", "move", first, "1"))
        line = watch.stdout.readline()
        done(cli("aliases", "move", f"{second}=1", f"{first}=2"))
        lines = [line, watch.stdout.readline()]
        while f"{first} v1 -> v2" not in lines[-1]:
            lines.append(watch.stdout.readline())
        watch.send_signal(signal.SIGINT)
    assert not any(second in one for one in lines)
