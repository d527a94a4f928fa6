"""The source that a run records, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from rollforward import v1
from rollforward.tracking.live_run import source
from rollforward.tracking.live_run.git_repository import Head, read_head
from rollforward.tracking.live_run.source import without_credentials

SCRIPT = """
from rollforward.tracking.live_run.source import source
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
    """Return the source that a program records."""
    done = subprocess.run([sys.executable, str(script)], cwd=cwd, capture_output=True, text=True, check=True)
    found = v1.RunSource.FromString(bytes.fromhex(done.stdout.strip()))
    return {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "project" / "train.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_source_in_a_repository_has_its_commit(script: Path, tmp_path: Path) -> None:
    folder = script.parent
    git(folder, "init")
    git(folder, "remote", "add", "origin", "https://user:secret@git.example/team/project.git")
    assert source_of(script, tmp_path)["git_commit"] == ""
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    # The repository is that of the program, not of the working directory.
    found = source_of(script, tmp_path)
    assert found["entry_point"] == str(script.resolve())
    assert (found["git_commit"], found["git_branch"]) == (git(folder, "rev-parse", "HEAD"), "trunk")
    assert (found["git_url"], found["git_dirty"]) == ("https://git.example/team/project.git", False)
    script.write_text(SCRIPT + "\n")
    git(folder, "checkout", "--detach")
    changed = source_of(script, tmp_path)
    assert (changed["git_branch"], changed["git_dirty"]) == ("", True)


def test_source_outside_a_repository_has_no_commit(script: Path, tmp_path: Path) -> None:
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
def test_credentials_are_removed_from_urls(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one commit on "trunk" and a remote."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init")
    git(folder, "remote", "add", "other", "https://git.example/other.git")
    git(folder, "remote", "add", "origin", "https://git.example/p.git")
    (folder / "a.txt").write_text("a")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def head_of(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_head_is_read_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = head_of(repository)
    inside = repository / "deep" / "er"
    inside.mkdir(parents=True)
    monkeypatch.setenv("PATH", "")
    assert read_head(inside) == Head(commit, "trunk", "https://git.example/p.git")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert read_head(repository.parent) == Head(commit, "trunk", "https://git.example/p.git")


@pytest.mark.parametrize("command", [["pack-refs", "--all"], ["gc"], ["checkout", "-b", "feature/a"]])
def test_loose_and_packed_refs_are_read(command: list[str], repository: Path) -> None:
    git(repository, *command)
    branch = git(repository, "branch", "--show-current")
    assert read_head(repository) == Head(head_of(repository), branch, "https://git.example/p.git")
    git(repository, "commit", "--allow-empty", "-m", "second")
    assert read_head(repository) == Head(head_of(repository), branch, "https://git.example/p.git")


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "--detach")
    assert read_head(repository) == Head(head_of(repository), "", "https://git.example/p.git")


def test_worktrees_and_submodules_have_their_own_heads(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(repository, "worktree", "add", "-b", "side", str(tree))
    git(tree, "commit", "--allow-empty", "-m", "second")
    git(repository, "pack-refs", "--all")
    assert head_of(tree) != head_of(repository)
    assert read_head(tree) == Head(head_of(tree), "side", "https://git.example/p.git")
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", str(repository), "inner")
    assert read_head(outer / "inner") == Head(head_of(repository), "trunk", str(repository))


def test_no_head_before_the_first_commit_or_outside_a_repository(tmp_path: Path) -> None:
    assert read_head(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert read_head(tmp_path) is None
    git(tmp_path, "init")
    assert read_head(tmp_path) == Head("", "trunk", "")


@pytest.mark.parametrize("fails_by", ["exit 128", "exec sleep 60"])
def test_commit_is_known_when_git_does_not_respond(
    fails_by: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit = head_of(repository)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{fails_by}\n")
    (tmp_path / "bin" / "git").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(source, "_GIT_SECONDS", 0.2)
    found = v1.RunSource()
    source._describe_commit(found, repository)
    assert (found.git_commit, found.git_branch, found.git_url) == (commit, "trunk", "https://git.example/p.git")
    assert (found.git_dirty, found.git_dirty_unknown) == (False, True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
