"""The real `rollforward` program, against the services as `up` runs them."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

from rollforward.cli.app import COMMANDS
from tests.integration.cli.command_line import (
    SCRIPT,
    SECONDS,
    TIME,
    Cli,
    SampleData,
    answer,
    done,
    environment,
    refused,
)
from tests.integration.up import Up, new_id

ROOT = Path(__file__).parents[3]


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
    for name, *_ in COMMANDS:
        assert re.search(rf"\b{name}\b", text), name


def test_version_is_printed_without_grpc() -> None:
    code = (
        "import sys; from rollforward.cli.app import run; run(['version']);"
        "sys.exit(bool({'grpc', 'google.protobuf', 'rich'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    assert done(
        subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=SECONDS, check=False)
    ).startswith("rollforward ")


def test_version(cli: Cli) -> None:
    text = done(cli("version"))
    assert text == done(cli("--version")) == f"rollforward {answer(cli('version', '-o', 'json'))['version']}\n"


def test_experiments(cli: Cli, sample: SampleData) -> None:
    assert sample.experiment in done(cli("experiments", "list"))
    found = [one for one in answer(cli("experiments", "list", "-o", "json")) if one["name"] == sample.experiment]
    assert found[0]["actor"] == "Zoë"


def test_runs(cli: Cli, sample: SampleData) -> None:
    second, first = answer(cli("runs", "list", "--experiment", sample.experiment, "-o", "json"))
    assert (first["run_id"], second["run_id"]) == sample.runs
    table = done(cli("runs", "list", "--experiment", sample.experiment))
    assert all(run[:12] in table for run in sample.runs)
    assert TIME.search(table)
    shown = answer(cli("runs", "show", sample.runs[0], "-o", "json"))
    assert shown["source"].pop("packages")
    assert shown == first
    assert first["experiment"] == sample.experiment


def test_run_as_json_has_integers_and_strings_for_nan(cli: Cli, sample: SampleData) -> None:
    run = answer(cli("runs", "show", sample.runs[0], "-o", "json"))
    assert run["status"] == "finished"
    assert run["metrics"]["accuracy"]["last"] == 0.96
    assert run["metrics"]["accuracy"]["count"] == 3
    assert run["metrics"]["loss"]["last"] == "NaN"
    assert run["params"] == {"depth": "3", "name": "first"}
    assert run["tags"] == {"team": "é"}
    assert run["artifacts"][0]["size_bytes"] == sum(file.stat().st_size for file in sample.files.iterdir())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", run["artifacts"][0]["digest"])
    assert run["started_at"].endswith("Z")


def test_a_run_as_a_table(cli: Cli, sample: SampleData) -> None:
    text = done(cli("runs", "show", sample.runs[0]))
    assert re.search(r"accuracy +0\.96 +2 +0\.94 +0\.96 +3\n", text)
    assert re.search(r"param +depth +3\n", text)
    assert re.search(r"tag +team +é\n", text)


def test_models(cli: Cli, sample: SampleData) -> None:
    assert sample.model in done(cli("models", "list", "--limit", "1000"))
    listed = [
        one for one in answer(cli("models", "list", "--limit", "1000", "-o", "json")) if one["name"] == sample.model
    ]
    shown = answer(cli("models", "show", sample.model, "-o", "json"))
    assert [version["version"] for version in shown["versions"]] == [2, 1]
    assert [version["run_id"] for version in reversed(shown["versions"])] == list(sample.runs)
    assert {**listed[0], "versions": shown["versions"]} == shown
    table = done(cli("models", "show", sample.model))
    assert shown["versions"][0]["digest"][:19] in table
    assert sample.runs[1][:12] in table


def test_failed_gate_is_reported_with_its_values(cli: Cli, sample: SampleData) -> None:
    name = f"gated-{new_id()}"
    created = answer(cli("models", "create", name, "--gate", "run.metrics.accuracy > 0.97", "-o", "json"))
    assert created["registration_gate"] == "run.metrics.accuracy > 0.97"
    result = cli("models", "register", name, "--run", sample.runs[0], "--artifact", "model")
    assert refused(result) == "GATE_FAILED"
    assert "run.metrics.accuracy > 0.97" in result.stderr
    version = answer(cli("models", "register", name, "--run", sample.runs[1], "--artifact", "model", "-o", "json"))
    assert (version["version"], version["evidence"]["run"]["metrics"]["accuracy"]) == (1, 0.99)
    assert answer(cli("models", "set-gate", name, "", "-o", "json"))["registration_gate"] is None
    table = done(cli("models", "register", name, "--run", sample.runs[0], "--artifact", "model"))
    assert f"{name} v2" in table


def test_registered_files_can_be_downloaded(cli: Cli, sample: SampleData, tmp_path: Path) -> None:
    name = f"files-{new_id()}"
    version = answer(cli("models", "register", name, str(sample.files), "-o", "json"))
    assert (version["version"], version["run_id"]) == (1, None)
    target = tmp_path / "copy"
    assert done(cli("download", f"models:/{name}/1", str(target))) == f"{target}\n"
    assert (target / "weights.bin").read_bytes() == (sample.files / "weights.bin").read_bytes()
    assert refused(cli("download", f"models:/{name}/1", str(target))) == "DESTINATION_NOT_EMPTY"
    done(cli("aliases", "move", f"{name}@live", "1"))
    other = tmp_path / "other"
    assert answer(cli("download", f"{name}@live", str(other), "-o", "json")) == {"path": str(other)}


def test_serving_status_without_pods(cli: Cli, sample: SampleData) -> None:
    assert answer(cli("deployments", "list", sample.model, "--all", "-o", "json")) == []
    assert done(cli("deployments", "list", sample.model)) == "no deployments match\n"


def test_status_and_rebuild(cli: Cli) -> None:
    status = answer(cli("status", "-o", "json"))
    assert set(status["services"]) == {"tracking", "registry", "serving", "audit", "webhooks"}
    assert all(isinstance(log["head"], int) for log in status["logs"])
    table = done(cli("status"))
    for projection in status["projections"]:
        assert projection["name"] in table
    rebuilt = answer(cli("rebuild", "registry", "-o", "json"))
    assert rebuilt["done"]
    assert rebuilt["live_digest"] == rebuilt["rebuilt_digest"] != ""
    assert re.search(r"equal +yes", done(cli("rebuild", "tracking")))
    assert refused(cli("rebuild", "nothing")) == "PROJECTION_NOT_FOUND"


def test_snapshot(cli: Cli) -> None:
    taken = answer(cli("snapshot", "registry", "-o", "json"))
    assert taken["done"]
    assert int(taken["size_bytes"]) > 0
    assert re.search(r"position +[0-9]+", done(cli("snapshot", "tracking")))
    assert refused(cli("snapshot", "nothing")) == "PROJECTION_NOT_FOUND"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("runs show 0123456789abcdef0123456789abcdef", "RUN_NOT_FOUND"),
        ("runs list --experiment nothing-of-this-name", "EXPERIMENT_NOT_FOUND"),
        ("models show nothing", "MODEL_NOT_FOUND"),
        ("aliases get nothing@champion", "MODEL_NOT_FOUND"),
        ("aliases move MODEL@champion v9", "VERSION_NOT_FOUND"),
        ("aliases get MODEL@champion --at 99999999", "POSITION_AHEAD"),
        ("download models:/nothing/1", "MODEL_NOT_FOUND"),
    ],
)
def test_rejected_command_prints_one_line_and_exits_with_1(
    arguments: str, reason: str, cli: Cli, sample: SampleData
) -> None:
    assert refused(cli(*arguments.replace("MODEL", sample.model).split())) == reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("aliases move MODEL 1", "INVALID_REFERENCE"),
        ("audit list --log nothing", "UNKNOWN_LOG"),
        ("aliases move MODEL@v1 1", "INVALID_ALIAS"),
        ("aliases move MODEL@latest 1", "INVALID_ALIAS"),
        ("models create gated --gate run.metrics", "INVALID_GATE"),
        ("models create a/b", "INVALID_NAME"),
        ("aliases get MODEL@champion --at someday", "INVALID_TIME"),
        ("status --server nowhere", "INVALID_ADDRESS"),
        ("models register MODEL", ""),
        ("models register MODEL --artifact model", ""),
        ("aliases move MODEL@champion one", ""),
        ("aliases move MODEL@champion", ""),
        ("aliases move MODEL@champion 1 --exepct-revision 3", ""),
        ("aliases mvoe MODEL@champion 1", ""),
        ("aliases move MODEL@champion=1 MODEL@champion=2", ""),
        ("aliases move MODEL@champion=1 MODEL@other=x", ""),
        ("aliases move MODEL@champion=1 MODEL@other=2 --expect-revision 3", ""),
        ("aliases move MODEL@champion=1 MODEL@other=2 --expect MODEL@third=3", ""),
        ("aliases history --cause whim", "INVALID_CAUSE"),
        ("schedules create MODEL@champion 1 --at someday", "INVALID_TIME"),
        ("schedules create MODEL@champion 1", ""),
        ("models tag MODEL team", ""),
        ("versions set-status MODEL 1 splendid", ""),
        ("diff MODEL", ""),
        ("diff --revision 3 --from 2", ""),
        ("audit export --format xml", ""),
        ("models list -o yaml", ""),
        ("models list --limit many", ""),
        ("nothing", ""),
    ],
)
def test_wrong_usage_prints_one_line_and_exits_with_2(
    arguments: str, reason: str, cli: Cli, sample: SampleData
) -> None:
    assert refused(cli(*arguments.replace("MODEL", sample.model).split()), 2) == reason


def test_missing_file_prints_one_line(cli: Cli, sample: SampleData, tmp_path: Path) -> None:
    result = cli("models", "register", sample.model, str(tmp_path / "missing"))
    assert refused(result) == ""
    assert "missing" in result.stderr


def test_unreachable_server_prints_one_line_with_its_address(cli: Cli) -> None:
    result = cli("models", "list", "--server", "127.0.0.1:1", "--timeout", "0.5")
    assert refused(result) == "UNAVAILABLE"
    assert "127.0.0.1:1" in result.stderr


def test_global_options_can_come_before_the_command(cli: Cli, system: Up) -> None:
    arguments = ("--server", system.address, "-o", "json", "--timeout=20", "models", "list", "--limit", "1")
    assert len(answer(cli(*arguments, ROLLFORWARD_URI="127.0.0.1:1"))) == 1


def test_piped_output_has_no_color_and_a_closed_pipe_is_no_error(cli: Cli, system: Up) -> None:
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


def test_text_cannot_control_the_terminal(cli: Cli, sample: SampleData) -> None:
    with_markup = f"markup-{new_id()}"
    done(cli("models", "create", with_markup, "--description", "[bold]x[/bold]\twith a tab"))
    assert "[bold]x[/bold]\\twith a tab" in done(cli("models", "show", with_markup))


@pytest.mark.parametrize(
    ("missing", "arguments"), [("rollforward_server", "rollforward-server"), ("cyclopts", "[cli]")]
)
def test_missing_installation_prints_one_line(missing: str, arguments: str, tmp_path: Path) -> None:
    (packages,) = (Path(path) for path in site.getsitepackages() if Path(path).is_dir())
    for entry in packages.iterdir():
        if not entry.name.startswith(missing):
            (tmp_path / entry.name).symlink_to(entry)
    program = "import sys; from rollforward.cli import main; sys.argv[1:] = ['up']; sys.exit(main())"
    result = subprocess.run(
        # Without site, no .pth file adds the server's tree.
        [sys.executable, "-S", "-P", "-c", program],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT / "client" / "src")))),
        timeout=SECONDS,
        check=False,
    )
    assert refused(result, 2) == ""
    assert arguments in result.stderr
