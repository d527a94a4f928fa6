"""Conventions of all commands: help, examples, names of options and arguments, exit codes."""

from __future__ import annotations

import re
import shlex

import pytest

from rollforward.cli.app import command_line, run
from tests.unit.client.cli.command_tree import SERVER, WITHOUT_OPTIONS, leaves

PATHS = sorted(leaves())
# Commands that write, and therefore take a reason and a request id.
CHANGES = {"create", "register", "set-gate", "set-status", "rename", "describe", "tag", "untag", "delete", "restore"}
CHANGES |= {"copy", "move", "remove", "cancel", "set", "protect", "update", "rotate", "resume", "rollback"}
# Phrases that help must not contain.
BANNED = "otherwise|of now|at most so many|told|hears?|heard of|held by|whoever|behind this|for example"
# Other names for existing options; one meaning has one name.
OLD_SPELLINGS = {"--by", "--models", "--aliases", "--why", "--begin", "--max", "--count"}


def shown(path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a command's help."""
    monkeypatch.setenv("COLUMNS", "200")
    assert run([*path, "--help"]) == 0
    return capsys.readouterr().out


def examples(help_text: str) -> list[str]:
    """Return the command lines at the end of a help text."""
    return [line.strip() for line in help_text.partition("Examples:")[2].splitlines() if line.strip()]


def options(path: tuple[str, ...]) -> set[str]:
    """Return the names of a command's options."""
    arguments = leaves()[path].assemble_argument_collection()
    return {name for argument in arguments if argument.show for name in argument.names if name.startswith("-")}


def test_the_command_tree_has_nested_and_plain_commands() -> None:
    assert {("runs", "list"), ("aliases", "move"), ("schedules", "cancel"), ("rollback",), ("up",)} <= {*PATHS}


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_has_a_uniform_layout(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(path, capsys, monkeypatch)
    usage, _, effect = text.splitlines()[:3]
    assert usage.startswith(f"Usage: rollforward {' '.join(path)}")
    assert "ARGS" not in usage
    assert re.fullmatch(r"[A-Z][a-z]+ .*\.", effect), effect
    assert len(effect) <= 120
    assert text.index("Examples:") > text.rindex("╯") if "╯" in text else True
    assert not re.search(r"\b(STR|INT|FLOAT|PATH\.\.\.|CHOICE|BOOL)\b", text), text
    assert "[default: ()]" not in text
    assert "--empty-" not in text
    found = re.search(rf"\b({BANNED})\b", text, re.IGNORECASE)
    assert not found, found


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_example_parses(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = examples(shown(path, capsys, monkeypatch))
    assert lines
    for line in lines:
        program, *tokens = shlex.split(line)
        assert (program, tuple(tokens[: len(path)])) == ("rollforward", path)
        given = tokens[: tokens.index(">")] if ">" in tokens else tokens
        command_line(given).parse_args(given, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_an_unknown_option_is_a_usage_error(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    required = [argument for argument in leaves()[path].assemble_argument_collection() if argument.required]
    values = ["m@a" if argument.name == "MODEL@ALIAS" else "1" for argument in required if argument.show]
    assert run([*path, *values, "--no-such-option"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_options_with_one_meaning_have_one_name(path: tuple[str, ...]) -> None:
    found = options(path)
    assert not found & OLD_SPELLINGS
    if path[0] not in WITHOUT_OPTIONS:
        assert {"--server", "--output", "-o", "--timeout"} <= found
    if path[-1] in CHANGES and path[0] not in SERVER:
        assert {"--reason", "--request-id", "--actor"} <= found


@pytest.mark.parametrize("path", [path for path in PATHS if "--limit" in options(path)], ids=" ".join)
@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_limit_below_1_is_rejected(path: tuple[str, ...], limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    required = [argument for argument in leaves()[path].assemble_argument_collection() if argument.required]
    assert run([*path, *("m@a" for argument in required if argument.show), "--limit", limit]) == 2
    assert "--limit" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted({path[:1] for path in PATHS if len(path) > 1}), ids=" ".join)
def test_command_groups_are_plural(path: tuple[str, ...]) -> None:
    assert path[0].endswith("s") or path[0] == "audit"


def test_program_help_lists_commands_and_global_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in {path[0] for path in PATHS}:
        assert re.search(rf"^│ {name} ", text, re.MULTILINE), name
    for option in ("--server", "--output", "--timeout", "--stale", "--actor"):
        assert option in text
