"""The commands for aliases: move, history, rollback and watch."""

from __future__ import annotations

import json
import signal
import subprocess

from tests.integration.cli.command_line import SCRIPT, SECONDS, TIME, Cli, answer, done, environment, refused
from tests.integration.up import Up, new_id


def test_an_alias_moves_and_rolls_back_and_keeps_its_history(cli: Cli, alias: str) -> None:
    first = answer(cli("aliases", "move", alias, "1", "--reason", "first", "--actor", "Zoë", "-o", "json"))
    assert (first["version"], first["actor"], first["reason"]) == (1, "Zoë", "first")
    seen = ("--expect-revision", str(first["revision"]))
    assert "v2" in done(cli("aliases", "move", alias, "v2", *seen, ROLLFORWARD_ACTOR="Ada"))
    (back,) = answer(cli("rollback", alias, "--reason", "worse", "-o", "json"))["changes"]
    assert (back["from_version"], back["to_version"]) == (2, 1)
    changes = answer(cli("aliases", "history", alias, "-o", "json"))
    assert [(one["from_version"], one["to_version"]) for one in changes] == [(2, 1), (1, 2), (None, 1)]
    assert changes[0]["restored_revision"] == back["restored_revision"] == first["revision"]
    assert changes[0]["cause"] == "rollback"
    assert changes[1]["actor"] == "Ada"
    then = answer(cli("aliases", "get", alias, "--at", str(changes[1]["revision"]), "-o", "json"))
    assert then["version"] == 2
    by_time = answer(cli("aliases", "get", alias, "--at", changes[2]["time"], "-o", "json"))
    assert by_time["version"] == 1
    (forth,) = answer(cli("rollback", alias, "--to", str(changes[1]["revision"]), "-o", "json"))["changes"]
    assert (forth["to_version"], forth["restored_revision"]) == (2, changes[1]["revision"])


def test_history_fits_a_hundred_columns(cli: Cli, alias: str) -> None:
    name, _, label = alias.partition("@")
    short = f"{name}@{label[:6]}"
    done(cli("aliases", "move", short, "1", "--reason", "a reason that goes on for long enough to need another line"))
    text = done(cli("aliases", "history", short, COLUMNS="100"))
    assert max(map(len, text.splitlines())) <= 100
    assert TIME.search(text)
    assert len(done(cli("aliases", "history", short)).splitlines()) == 2


def test_an_alias_is_removed_and_its_history_stays(cli: Cli, alias: str) -> None:
    done(cli("aliases", "move", alias, "1"))
    change = answer(cli("aliases", "remove", alias, "--reason", "done with", "-o", "json"))
    assert (change["from_version"], change["to_version"], change["reason"]) == (1, None, "done with")
    assert refused(cli("aliases", "get", alias)) == "ALIAS_NOT_FOUND"
    assert len(answer(cli("aliases", "history", alias, "-o", "json"))) == 2


def test_a_conflict_shows_the_current_state(cli: Cli, alias: str) -> None:
    moved = answer(cli("aliases", "move", alias, "2", "-o", "json"))
    for arguments in (("aliases", "move", alias, "1"), ("aliases", "remove", alias), ("rollback", alias, "--to", "1")):
        result = cli(*arguments, "--expect-revision", "1")
        assert refused(result) == "WRONG_REVISION"
        assert f"{alias} is at revision {moved['revision']}, not 1" in result.stderr
        assert f"it is v2 since {moved['moved_at']}, by {moved['actor']}" in result.stderr


def test_a_request_id_makes_a_repetition_harmless(cli: Cli, alias: str) -> None:
    arguments = ("aliases", "move", alias, "1", "--request-id", new_id(), "-o", "json")
    assert answer(cli(*arguments)) == answer(cli(*arguments))
    assert len(answer(cli("aliases", "history", alias, "-o", "json"))) == 1
    assert refused(cli("aliases", "move", alias, "2", *arguments[4:6])) == "REQUEST_ID_REUSED"


def test_watch_prints_current_assignments_then_changes_until_ctrl_c(cli: Cli, alias: str, system: Up) -> None:
    done(cli("aliases", "move", alias, "1"))
    with subprocess.Popen(
        [SCRIPT, "watch", alias, "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(ROLLFORWARD_URI=system.address),
    ) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        snapshot = json.loads(watch.stdout.readline())["snapshot"]
        moved = answer(cli("aliases", "move", alias, "2", "-o", "json"))
        change = json.loads(watch.stdout.readline())["change"]
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(SECONDS), watch.stderr.read()) == (0, "")
    assert (snapshot["version"], change["to_version"], change["revision"]) == (1, 2, moved["revision"])


def test_watch_from_a_revision_starts_with_missed_changes(cli: Cli, alias: str, system: Up) -> None:
    first = answer(cli("aliases", "move", alias, "1", "-o", "json"))
    done(cli("aliases", "move", alias, "2", "--reason", "missed"))
    command = [str(SCRIPT), "watch", alias, "--after", str(first["revision"])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(ROLLFORWARD_URI=system.address)
    ) as watch:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
    assert f"{alias} v1 -> v2" in line
    assert "missed" in line
