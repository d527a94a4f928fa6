"""The command line as people and scripts use it: the real program, against the services as `up` runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rollforward as rf
from tests.integration.up import Up, new_id

SCRIPT = Path(sys.executable).with_name("rollforward")
ROOT = Path(__file__).parents[2]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SECONDS = 60
LEAVES = (
    "experiments list",
    "runs list",
    "runs show",
    "runs compare",
    "models list",
    "models show",
    "models create",
    "models gate",
    "models register",
    "alias move",
    "alias get",
    "alias history",
    "alias remove",
    "rollback",
    "watch",
    "download",
    "serving status",
    "audit events",
    "rebuild",
    "status",
)
SERVER_LEAVES = ("up", "run", "serve", "demo")

Cli = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    """The environment without what would change the output, and with `more`."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("ROLLFORWARD_", "COLUMNS"))}
    return {**plain, "PYTHONUTF8": "1", **more}


@pytest.fixture(scope="module")
def cli(system: Up) -> Cli:
    """Runs the program to its end."""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        variables = environment(**{"ROLLFORWARD_URI": system.address, **more})
        return subprocess.run(
            [SCRIPT, *words], capture_output=True, text=True, env=variables, timeout=SECONDS, check=False
        )

    return run


def done(result: subprocess.CompletedProcess[str]) -> str:
    """What a command printed that was done without a word on standard error."""
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    """The JSON document that a command printed."""
    return json.loads(done(result))


def refused(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The reason in the one line that a refused command wrote."""
    assert (result.returncode, result.stdout) == (code, ""), result
    assert result.stderr.count("\n") == 1, result.stderr
    found = re.match(r"rollforward: ([A-Z_]+): \S", result.stderr)
    return found[1] if found else ""


@dataclass(frozen=True)
class Facts:
    """What the tests find there: two runs with files, and a model with two versions."""

    experiment: str
    runs: tuple[str, str]
    model: str
    files: Path


@pytest.fixture(scope="module")
def facts(system: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """Logged by the SDK, as a training job would."""
    files = tmp_path_factory.mktemp("model")
    (files / "weights.bin").write_bytes(bytes(range(256)) * 8192)
    (files / "labels.json").write_text('["good", "bad"]')
    experiment, model = f"experiment-{new_id()}", f"model-{new_id()}"
    with rf.Connection(system.address, actor="Zoë") as link:
        ids = []
        for name, accuracy in (("first", 0.96), ("second", 0.99)):
            with rf.start_run(experiment, name=name, tags={"team": "é"}, connection=link) as run:
                run.log_params({"depth": 3, "name": name})
                for step in range(3):
                    run.log_metric("accuracy", accuracy - 0.01 * (2 - step), step)
                run.log_metric("loss", float("nan"))
                run.log_artifacts(files, "model")
            rf.register_model(model, run, artifact="model", connection=link)
            ids.append(run.run_id)
        yield Facts(experiment, (ids[0], ids[1]), model, files)


@pytest.fixture
def alias(facts: Facts) -> str:
    """An alias that nobody moved yet."""
    return f"{facts.model}@a{new_id()}"


@pytest.mark.parametrize("leaf", LEAVES)
def test_help_shows_examples_that_are_real_commands(leaf: str, cli: Cli) -> None:
    text = done(cli(*leaf.split(), "--help", COLUMNS="100"))
    examples = [line for line in text.splitlines() if line.startswith("    rollforward ")]
    assert examples, text
    assert all(f"rollforward {leaf}" in line for line in examples)
    assert "--server" in text


@pytest.mark.parametrize("leaf", SERVER_LEAVES)
def test_the_servers_commands_have_help_too(leaf: str, cli: Cli) -> None:
    assert f"rollforward {leaf}" in done(cli(leaf, "--help"))


def test_help_names_every_command_and_loads_neither_grpc_nor_the_server() -> None:
    program = (
        "import sys; from rollforward.cli.app import run; run(['--help']);"
        "sys.exit(bool({'grpc', 'services', 'google.protobuf'} & sys.modules.keys()))"
    )
    text = done(
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    )
    for leaf in (*LEAVES, *SERVER_LEAVES, "version"):
        assert re.search(rf"\b{leaf.split()[0]}\b", text), leaf


def test_version(cli: Cli) -> None:
    text = done(cli("version"))
    assert text == done(cli("--version")) == f"rollforward {answer(cli('version', '-o', 'json'))['version']}\n"


def test_experiments(cli: Cli, facts: Facts) -> None:
    assert facts.experiment in done(cli("experiments", "list"))
    found = [one for one in answer(cli("experiments", "list", "-o", "json")) if one["name"] == facts.experiment]
    assert found[0]["actor"] == "Zoë"


def test_runs(cli: Cli, facts: Facts) -> None:
    second, first = answer(cli("runs", "list", "--experiment", facts.experiment, "-o", "json"))
    assert (first["run_id"], second["run_id"]) == facts.runs
    table = done(cli("runs", "list", "--experiment", facts.experiment))
    assert all(run in table for run in facts.runs)
    assert TIME.search(table)
    assert answer(cli("runs", "show", facts.runs[0], "-o", "json")) == first


def test_a_run_as_json_has_numbers_for_integers_and_words_for_what_is_no_number(cli: Cli, facts: Facts) -> None:
    run = answer(cli("runs", "show", facts.runs[0], "-o", "json"))
    assert run["status"] == "RUN_STATUS_FINISHED"
    assert run["metrics"]["accuracy"]["last"] == 0.96
    assert run["metrics"]["accuracy"]["count"] == 3
    assert run["metrics"]["loss"]["last"] == "NaN"
    assert run["params"] == {"depth": "3", "name": "first"}
    assert run["tags"] == {"team": "é"}
    assert run["artifacts"][0]["size_bytes"] == sum(file.stat().st_size for file in facts.files.iterdir())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", run["artifacts"][0]["digest"])
    assert run["start_time"].endswith("Z")


def test_a_run_as_a_table(cli: Cli, facts: Facts) -> None:
    text = done(cli("runs", "show", facts.runs[0]))
    assert re.search(r"accuracy +0\.96 +2 +0\.94 +0\.96 +3\n", text)
    assert re.search(r"param +depth +3\n", text)
    assert re.search(r"tag +team +é\n", text)


def test_runs_side_by_side(cli: Cli, facts: Facts) -> None:
    text = done(cli("runs", "compare", *facts.runs))
    assert re.search(r"^ +first +second$", text, re.MULTILINE)
    assert re.search(r"^accuracy +0\.96 +0\.99$", text, re.MULTILINE)
    runs = answer(cli("runs", "compare", *facts.runs, "-o", "json"))
    assert tuple(run["run_id"] for run in runs) == facts.runs


def test_models(cli: Cli, facts: Facts) -> None:
    assert facts.model in done(cli("models", "list", "--limit", "1000"))
    listed = [
        one for one in answer(cli("models", "list", "--limit", "1000", "-o", "json")) if one["name"] == facts.model
    ]
    shown = answer(cli("models", "show", facts.model, "-o", "json"))
    assert [version["version"] for version in shown["versions"]] == [2, 1]
    assert [version["run_id"] for version in reversed(shown["versions"])] == list(facts.runs)
    assert {**listed[0], "versions": shown["versions"]} == shown
    table = done(cli("models", "show", facts.model))
    assert shown["versions"][0]["digest"][:19] in table
    assert facts.runs[1] in table


def test_a_gate_refuses_a_run_and_says_why(cli: Cli, facts: Facts) -> None:
    name = f"gated-{new_id()}"
    created = answer(cli("models", "create", name, "--gate", "run.metrics.accuracy > 0.97", "-o", "json"))
    assert created["registration_gate"] == "run.metrics.accuracy > 0.97"
    result = cli("models", "register", name, "--run", facts.runs[0], "--artifact", "model")
    assert refused(result) == "GATE_FAILED"
    assert "run.metrics.accuracy > 0.97" in result.stderr
    version = answer(cli("models", "register", name, "--run", facts.runs[1], "--artifact", "model", "-o", "json"))
    assert (version["version"], version["evidence"]["run"]["metrics"]["accuracy"]) == (1, 0.99)
    assert answer(cli("models", "gate", name, "", "-o", "json"))["registration_gate"] == ""
    table = done(cli("models", "register", name, "--run", facts.runs[0], "--artifact", "model"))
    assert f"{name} v2" in table


def test_files_become_a_version_and_come_back(cli: Cli, facts: Facts, tmp_path: Path) -> None:
    name = f"files-{new_id()}"
    version = answer(cli("models", "register", name, str(facts.files), "-o", "json"))
    assert (version["version"], version["run_id"]) == (1, "")
    target = tmp_path / "copy"
    assert done(cli("download", f"models:/{name}/1", str(target))) == f"{target}\n"
    assert (target / "weights.bin").read_bytes() == (facts.files / "weights.bin").read_bytes()
    assert refused(cli("download", f"models:/{name}/1", str(target))) == "DESTINATION_NOT_EMPTY"
    done(cli("alias", "move", f"{name}@live", "1"))
    other = tmp_path / "other"
    assert answer(cli("download", f"{name}@live", str(other), "-o", "json")) == {"path": str(other)}


def test_an_alias_moves_and_rolls_back_and_keeps_its_history(cli: Cli, alias: str) -> None:
    first = answer(cli("alias", "move", alias, "1", "--reason", "first", "--actor", "Zoë", "-o", "json"))
    assert (first["version"], first["actor"], first["reason"]) == (1, "Zoë", "first")
    seen = ("--expect-revision", str(first["revision"]))
    assert "v2" in done(cli("alias", "move", alias, "v2", *seen, ROLLFORWARD_ACTOR="Ada"))
    back = answer(cli("rollback", alias, "--reason", "worse", "-o", "json"))
    assert (back["version"], back["cause"]) == (1, "ALIAS_CAUSE_ROLLBACK")
    changes = answer(cli("alias", "history", alias, "-o", "json"))
    assert [(one["from_version"], one["to_version"]) for one in changes] == [(2, 1), (1, 2), (0, 1)]
    assert changes[0]["restored_revision"] == first["revision"]
    assert changes[1]["actor"] == "Ada"
    then = answer(cli("alias", "get", alias, "--at", str(changes[1]["revision"]), "-o", "json"))
    assert then["version"] == 2
    by_time = answer(cli("alias", "get", alias, "--at", changes[2]["time"], "-o", "json"))
    assert by_time["version"] == 1
    assert answer(cli("rollback", alias, "--to", str(changes[1]["revision"]), "-o", "json"))["version"] == 2


def test_a_history_fits_a_hundred_columns(cli: Cli, alias: str) -> None:
    name, _, label = alias.partition("@")
    short = f"{name}@{label[:6]}"
    done(cli("alias", "move", short, "1", "--reason", "a reason that goes on for long enough to need another line"))
    text = done(cli("alias", "history", short, COLUMNS="100"))
    assert max(map(len, text.splitlines())) <= 100
    assert TIME.search(text)
    assert len(done(cli("alias", "history", short)).splitlines()) == 2


def test_an_alias_is_removed_and_its_history_stays(cli: Cli, alias: str) -> None:
    done(cli("alias", "move", alias, "1"))
    change = answer(cli("alias", "remove", alias, "--reason", "done with", "-o", "json"))
    assert (change["from_version"], change["to_version"], change["reason"]) == (1, 0, "done with")
    assert refused(cli("alias", "get", alias)) == "ALIAS_NOT_FOUND"
    assert len(answer(cli("alias", "history", alias, "-o", "json"))) == 2


def test_a_conflict_shows_the_current_state(cli: Cli, alias: str) -> None:
    moved = answer(cli("alias", "move", alias, "2", "-o", "json"))
    for words in (("alias", "move", alias, "1"), ("alias", "remove", alias), ("rollback", alias, "--to", "1")):
        result = cli(*words, "--expect-revision", "1")
        assert refused(result) == "WRONG_REVISION"
        assert f"{alias} is at revision {moved['revision']}, not 1" in result.stderr
        assert f"it is v2 since {moved['moved_at']}, by {moved['actor']}" in result.stderr


def test_a_request_id_makes_a_repetition_harmless(cli: Cli, alias: str) -> None:
    words = ("alias", "move", alias, "1", "--request-id", new_id(), "-o", "json")
    assert answer(cli(*words)) == answer(cli(*words))
    assert len(answer(cli("alias", "history", alias, "-o", "json"))) == 1
    assert refused(cli("alias", "move", alias, "2", *words[4:6])) == "REQUEST_ID_REUSED"


def test_a_watch_shows_what_stands_then_each_change_until_ctrl_c(cli: Cli, alias: str, system: Up) -> None:
    done(cli("alias", "move", alias, "1"))
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
        moved = answer(cli("alias", "move", alias, "2", "-o", "json"))
        change = json.loads(watch.stdout.readline())["change"]
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(SECONDS), watch.stderr.read()) == (0, "")
    assert (snapshot["version"], change["to_version"], change["revision"]) == (1, 2, moved["revision"])


def test_a_watch_from_a_revision_begins_with_what_was_missed(cli: Cli, alias: str, system: Up) -> None:
    first = answer(cli("alias", "move", alias, "1", "-o", "json"))
    done(cli("alias", "move", alias, "2", "--reason", "missed"))
    command = [str(SCRIPT), "watch", alias, "--from", str(first["revision"])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(ROLLFORWARD_URI=system.address)
    ) as watch:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
    assert f"{alias} v1 -> v2" in line
    assert "missed" in line


def test_serving_status_without_pods(cli: Cli, facts: Facts) -> None:
    assert answer(cli("serving", "status", facts.model, "--all", "-o", "json")) == []
    assert done(cli("serving", "status", facts.model)) == "none\n"


def test_audit_events_meet_all_conditions(cli: Cli, alias: str, facts: Facts) -> None:
    request_id = new_id()
    done(cli("alias", "move", alias, "1", "--request-id", request_id, "--reason", "audited", "--actor", "Zoë"))
    where = ["audit", "events", "--log", "registry", "--type", "AliasMoved", "--stream", f"model/{facts.model}"]
    where += ["--actor", "Zoë", "--request-id", request_id]
    (event,) = answer(cli(*where, "-o", "json"))
    assert (event["reason"], event["data"]["to_version"]) == ("audited", 1)
    assert event["data"]["@type"].endswith("/rollforward.v1.AliasMoved")
    assert "audited" in done(cli(*where))
    assert answer(cli(*where, "--until", event["time"], "-o", "json")) == []
    assert answer(cli(*where, "--since", event["time"], "-o", "json")) == [event]
    assert len(answer(cli("audit", "events", "--limit", "2", "-o", "json"))) == 2


def test_status_and_rebuild(cli: Cli) -> None:
    status = answer(cli("status", "-o", "json"))
    assert set(status["services"]) == {"tracking", "registry", "serving", "audit"}
    assert all(isinstance(log["head"], int) for log in status["logs"])
    table = done(cli("status"))
    for projection in status["projections"]:
        assert projection["name"] in table
    rebuilt = answer(cli("rebuild", "registry", "-o", "json"))
    assert rebuilt["done"]
    assert rebuilt["live_digest"] == rebuilt["rebuilt_digest"] != ""
    assert re.search(r"equal +yes", done(cli("rebuild", "tracking")))
    assert refused(cli("rebuild", "nothing")) == "PROJECTION_NOT_FOUND"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("runs show 0123456789abcdef0123456789abcdef", "RUN_NOT_FOUND"),
        ("runs list --experiment nothing-of-this-name", "EXPERIMENT_NOT_FOUND"),
        ("models show nothing", "MODEL_NOT_FOUND"),
        ("models create a/b", "INVALID_NAME"),
        ("models create gated --gate run.metrics", "INVALID_GATE"),
        ("alias get nothing@champion", "MODEL_NOT_FOUND"),
        ("alias move MODEL@champion v9", "VERSION_NOT_FOUND"),
        ("alias move MODEL@latest 1", "INVALID_ALIAS"),
        ("alias move MODEL@v1 1", "INVALID_ALIAS"),
        ("alias get MODEL@champion --at 99999999", "POSITION_AHEAD"),
        ("audit events --log nothing", "UNKNOWN_LOG"),
        ("download models:/nothing/1", "MODEL_NOT_FOUND"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(words: str, reason: str, cli: Cli, facts: Facts) -> None:
    assert refused(cli(*words.replace("MODEL", facts.model).split())) == reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("alias move MODEL 1", "INVALID_REFERENCE"),
        ("alias get MODEL@champion --at yesterday", "INVALID_TIME"),
        ("status --server nowhere", "INVALID_ADDRESS"),
        ("models register MODEL", ""),
        ("models register MODEL --artifact model", ""),
        ("alias move MODEL@champion one", ""),
        ("alias move MODEL@champion", ""),
        ("alias move MODEL@champion 1 --exepct-revision 3", ""),
        ("alias mvoe MODEL@champion 1", ""),
        ("models list -o yaml", ""),
        ("models list --limit many", ""),
        ("nothing", ""),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(words: str, reason: str, cli: Cli, facts: Facts) -> None:
    assert refused(cli(*words.replace("MODEL", facts.model).split()), 2) == reason


def test_a_missing_file_is_one_line(cli: Cli, facts: Facts, tmp_path: Path) -> None:
    result = cli("models", "register", facts.model, str(tmp_path / "missing"))
    assert refused(result) == ""
    assert "missing" in result.stderr


def test_no_server_is_one_line_that_says_where_it_was_looked_for(cli: Cli) -> None:
    result = cli("models", "list", "--server", "127.0.0.1:1", "--timeout", "0.5")
    assert refused(result) == "UNAVAILABLE"
    assert "127.0.0.1:1" in result.stderr


def test_options_of_every_command_may_stand_in_front(cli: Cli, system: Up) -> None:
    words = ("--server", system.address, "-o", "json", "--timeout=20", "models", "list", "--limit", "1")
    assert len(answer(cli(*words, ROLLFORWARD_URI="127.0.0.1:1"))) == 1


def test_what_is_piped_has_no_colour_and_a_closed_pipe_is_no_error(cli: Cli, system: Up) -> None:
    assert "\x1b" not in done(cli("status"))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [SCRIPT, "status"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(ROLLFORWARD_URI=system.address),
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_text_cannot_command_the_terminal(cli: Cli, facts: Facts) -> None:
    with_markup = f"markup-{new_id()}"
    done(cli("models", "create", with_markup, "--description", "[bold]x[/bold]\twith a tab"))
    assert "[bold]x[/bold]\\twith a tab" in done(cli("models", "show", with_markup))


@pytest.mark.parametrize(("missing", "words"), [("rollforward_server", "rollforward-server"), ("cyclopts", "[cli]")])
def test_what_is_not_installed_is_named_in_one_line(missing: str, words: str, tmp_path: Path) -> None:
    (packages,) = (Path(path) for path in site.getsitepackages() if Path(path).is_dir())
    for entry in packages.iterdir():
        if not entry.name.startswith(missing):
            (tmp_path / entry.name).symlink_to(entry)
    program = "import sys; from rollforward.cli import main; sys.argv[1:] = ['up']; sys.exit(main())"
    result = subprocess.run(
        # Without site no .pth file adds the server's tree.
        [sys.executable, "-S", "-P", "-c", program],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT / "client" / "src")))),
        timeout=SECONDS,
        check=False,
    )
    assert refused(result, 2) == ""
    assert words in result.stderr
