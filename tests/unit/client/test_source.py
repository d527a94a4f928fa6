"""A run says what code it executes, and nothing that must stay secret."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from rollforward.source import without_credentials

SCRIPT = """
from rollforward.source import source
found = source()
print(found.SerializeToString().hex())
"""


def git(folder: Path, *arguments: str) -> str:
    identity = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "-c",
        "init.defaultBranch=trunk",
        "-c",
        "commit.gpgsign=false",
    ]
    command = ["git", *identity, "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def source_of(script: Path, cwd: Path) -> dict[str, object]:
    """What a program finds out about itself."""
    done = subprocess.run([sys.executable, str(script)], cwd=cwd, capture_output=True, text=True, check=True)
    from rollforward import v1

    found = v1.RunSource.FromString(bytes.fromhex(done.stdout.strip()))
    return {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "project" / "train.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_a_program_in_a_repository_names_its_commit(script: Path, tmp_path: Path) -> None:
    folder = script.parent
    git(folder, "init")
    git(folder, "remote", "add", "origin", "https://user:secret@git.example/team/project.git")
    assert source_of(script, tmp_path)["git_commit"] == ""
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    # The repository is the program's, wherever it is started.
    found = source_of(script, tmp_path)
    assert found["entry_point"] == str(script.resolve())
    assert (found["git_commit"], found["git_branch"]) == (git(folder, "rev-parse", "HEAD"), "trunk")
    assert (found["git_url"], found["git_dirty"]) == ("https://git.example/team/project.git", False)
    script.write_text(SCRIPT + "\n")
    git(folder, "checkout", "--detach")
    changed = source_of(script, tmp_path)
    assert (changed["git_branch"], changed["git_dirty"]) == ("", True)


def test_a_program_outside_of_any_says_the_rest(script: Path, tmp_path: Path) -> None:
    found = source_of(script, tmp_path)
    assert (found["git_commit"], found["git_url"]) == ("", "")
    assert found["runtime"] == f"Python {sys.version.split()[0]}"
    assert found["host"]
    packages = dict(line.split("==") for line in found["packages"])  # type: ignore[attr-defined]
    assert packages["grpcio"] == metadata.version("grpcio")
    assert packages["typing-extensions"] == metadata.version("typing_extensions")
    assert list(packages) == sorted(packages)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@git.example/p.git", "https://git.example/p.git"),
        ("https://token@git.example:8443/p.git?token=x", "https://git.example:8443/p.git"),
        ("https://git.example/p.git", "https://git.example/p.git"),
        ("ssh://git@git.example/p.git", "ssh://git@git.example/p.git"),
        ("ssh://git:secret@git.example/p.git", "ssh://git.example/p.git"),
        ("git@git.example:team/p.git", "git@git.example:team/p.git"),
        ("/srv/git/p.git", "/srv/git/p.git"),
        ("", ""),
    ],
)
def test_no_credentials_are_told(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
