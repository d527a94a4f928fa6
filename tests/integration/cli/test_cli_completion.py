"""Shell completion, in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.command_line import SCRIPT, SECONDS, done, environment, program, refused

BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file with the output of `rollforward completion bash`."""
    file = tmp_path_factory.mktemp("completion") / "rollforward"
    file.write_text(done(program("127.0.0.1:1")("completion", "bash")))
    return file


def completed(script: Path, *typed: str, cwd: Path | None = None) -> set[str]:
    """Return bash's completions for the last argument of a command line."""
    assert BASH
    code = (
        'source "$1"; shift; COMP_WORDS=(rollforward "$@"); COMP_CWORD=$#; COMP_LINE="${COMP_WORDS[*]}"; '
        "COMP_POINT=${#COMP_LINE}; complete -p rollforward >/dev/null || exit 3; _rollforward; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [BASH, "--norc", "-c", code, "bash", str(script), *typed]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=SECONDS, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return set(result.stdout.split())


def test_commands_are_completed(script: Path) -> None:
    assert {"aliases", "runs", "rollback", "up", "start", "completion"} <= completed(script, "")
    assert completed(script, "al") == {"aliases"}
    assert completed(script, "aliases", "") == {"move", "get", "list", "remove", "history", "intervals"}
    assert completed(script, "aliases", "m") == {"move"}


def test_options_are_completed(script: Path) -> None:
    assert {"--reason", "--expires-at", "--server", "--stale"} <= completed(script, "aliases", "move", "-")
    assert completed(script, "aliases", "move", "m@a", "1", "--rea") == {"--reason"}
    assert completed(script, "runs", "list", "--experiment", "fraud", "--or") == {"--order-by"}


def test_choices_are_completed(script: Path) -> None:
    assert completed(script, "models", "list", "-o", "") == {"table", "wide", "json"}
    assert completed(script, "models", "list", "--output", "j") == {"json"}
    assert completed(script, "completion", "") == {"bash", "zsh", "fish"}
    assert completed(script, "versions", "set-status", "m", "1", "re") == {"ready"}


def test_options_before_a_command_do_not_hide_it(script: Path) -> None:
    assert completed(script, "--server", "localhost:1", "models", "regi") == {"register"}


def test_files_are_completed_where_a_path_is_expected(script: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    assert completed(script, "models", "register", "m", "wei", cwd=tmp_path) == {"weights.bin"}


def test_shell_loads_the_completion_by_name(tmp_path: Path) -> None:
    assert BASH
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    code = "source <(rollforward completion bash) && complete -p rollforward"
    result = subprocess.run(
        [BASH, "--norc", "-c", code],
        capture_output=True,
        text=True,
        env=environment(PATH=path),
        timeout=SECONDS,
        check=True,
    )
    assert result.stdout == "complete -F _rollforward rollforward\n"


@pytest.mark.parametrize(("shell", "sign"), [("zsh", "#compdef rollforward"), ("fish", "complete -c rollforward")])
def test_zsh_and_fish_have_a_script(shell: str, sign: str) -> None:
    assert sign in done(program("127.0.0.1:1")("completion", shell))


def test_unknown_shell_is_a_usage_error() -> None:
    assert refused(program("127.0.0.1:1")("completion", "tcsh"), 2) == ""
