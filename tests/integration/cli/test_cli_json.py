"""The output of every list command, as JSON and as a table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.command_line import Cli, SampleData, answer, done, refused
from tests.unit.client.cli.command_tree import leaves

# Every list command, with its required arguments.
LISTS = sorted(path for path in leaves() if path[-1] in {"list", "history", "intervals", "deliveries", "attempts"})
ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("aliases", "intervals"): ("MODEL@champion",),
    ("artifacts", "list"): ("MODEL@champion",),
    ("webhooks", "deliveries"): ("WEBHOOK",),
    ("webhooks", "attempts"): ("WEBHOOK",),
}
# Keys of free text, which is unchanged.
FREE = {"params", "tags", "set", "metrics"}


@pytest.fixture(scope="module")
def names(cli: Cli, sample: SampleData) -> dict[str, str]:
    """Create an item of each kind; return the values of the placeholders."""
    done(cli("aliases", "move", f"{sample.model}@champion", "1", "--reason", "first"))
    done(cli("aliases", "move", f"{sample.model}@champion", "2"))
    done(cli("schedules", "create", f"{sample.model}@later", "1", "--at", "1d"))
    done(cli("policies", "protect", "listed-policy", "--model", sample.model))
    hook = answer(cli("webhooks", "create", "https://hooks.example/y", "--model", sample.model, "-o", "json"))
    return {"MODEL": sample.model, "WEBHOOK": hook["webhook_id"]}


def filled(path: tuple[str, ...], names: dict[str, str]) -> list[str]:
    """Return a command line with the placeholders replaced."""
    arguments = list(ARGUMENTS.get(path, ()))
    for name, value in names.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    return [*path, *arguments]


def values(found: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value with its key, except free text."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name not in FREE:
                yield from values(value, name)
    elif isinstance(found, list):
        for value in found:
            yield from values(value, key)
    else:
        yield key, found


@pytest.mark.parametrize("path", LISTS, ids=" ".join)
def test_json_lists_are_arrays_of_objects_in_one_form(path: tuple[str, ...], cli: Cli, names: dict[str, str]) -> None:
    found = answer(cli(*filled(path, names), "-o", "json"))
    assert isinstance(found, list)
    assert all(isinstance(one, dict) for one in found)
    for key, value in values(found):
        assert value != "", key
        assert not (isinstance(value, str) and "_STATUS_" in value), (key, value)
        assert not key.endswith("timestamp"), key
        if key.endswith("_at") or key == "time":
            assert value is None or value.endswith("Z"), (key, value)


@pytest.mark.parametrize("path", LISTS, ids=" ".join)
def test_wide_output_cuts_no_value(path: tuple[str, ...], cli: Cli, names: dict[str, str]) -> None:
    assert "…" not in done(cli(*filled(path, names), "-o", "wide", COLUMNS="40"))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("runs list --filter \"run_name = 'nobody'\"", "no runs match"),
        ("models list --filter \"name = 'nobody'\"", "no models match"),
        ("versions list --filter \"name = 'nobody'\"", "no versions match"),
        ("experiments list --filter \"name = 'nobody'\"", "no experiments match"),
        ("logged-models list --filter \"name = 'nobody'\"", "no logged models match"),
        ("aliases history @nobody", "no changes match"),
        ("audit list --actor nobody-at-all", "no events match"),
    ],
)
def test_empty_table_says_that_nothing_matches(command: str, text: str, cli: Cli) -> None:
    shown = done(cli(*shlex.split(command)))
    assert shown == f"{text}\n"
    assert answer(cli(*shlex.split(command), "-o", "json")) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which nothing can be made")
@pytest.mark.parametrize(
    "command", [("download", "MODEL@champion", "/proc/target"), ("audit", "export", "--file", "/proc/target")]
)
def test_error_names_the_given_path(command: tuple[str, ...], cli: Cli, names: dict[str, str]) -> None:
    result = cli(*(part.replace("MODEL", names["MODEL"]) for part in command))
    assert refused(result) == ""
    assert result.stderr.rstrip().endswith(": /proc/target")
