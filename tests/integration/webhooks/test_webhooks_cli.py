"""The webhooks commands of the real command line, against the service."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rollforward import v1
from tests.e2e.processes import ROLLFORWARD
from tests.integration.webhooks.webhook_service import Service, sequences
from tests.servers.nats import running_nats
from tests.servers.receiver import Receiver
from tests.timeouts import scaled

COMMANDS = ["create", "list", "show", "update", "delete", "rotate", "test", "resume", "replay"]
COMMANDS += ["deliveries", "attempts"]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run the service; each test uses its own model and endpoints."""
    with running_nats() as nats, Service(tmp_path_factory.mktemp("webhooks"), nats) as running:
        yield running


@pytest.fixture(scope="module")
def cli(service: Service) -> Cli:
    """Return a function that runs a command to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("ROLLFORWARD_", "COLUMNS"))}
        plain |= {"ROLLFORWARD_URI": service.address, "ROLLFORWARD_ACTOR": "Zoë", "PYTHONUTF8": "1"}
        command = [ROLLFORWARD, "webhooks", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=plain, timeout=scaled(60), check=False)

    return run


@pytest.fixture
def model() -> str:
    """Return a name that no other test uses."""
    return f"model-{uuid.uuid4().hex}"


def printed(result: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that succeeded with nothing on standard error."""
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def json_output(result: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON document that a command printed."""
    return json.loads(printed(result))


def error_line(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the single error line of a refused command."""
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_command_has_example(cli: Cli, command: str) -> None:
    text = printed(cli(command, "--help"))
    assert f"rollforward webhooks {command}" in text
    assert "Examples:" in text


def test_endpoint_from_creation_to_deletion(cli: Cli, service: Service, model: str) -> None:
    with Receiver() as receiver:
        options = [receiver.url, "--model", model, "--change", "moved", "--description", "größer", "-o", "json"]
        made = json_output(cli("create", *options))
        hook, secret = made["webhook_id"], made["secret"]
        assert made["changes"] == ["moved"]
        assert secret.startswith("whsec_")
        assert hook[:12] in printed(cli("list"))
        assert [
            webhook["actor"] for webhook in json_output(cli("list", "-o", "json")) if webhook["webhook_id"] == hook
        ] == ["Zoë"]
        moved = service.move(model, 3)
        receiver.wait_for(3)
        service.wait_for_cursor(hook, moved[-1])
        shown = printed(cli("show", hook))
        assert all(word in shown for word in (hook, receiver.url, "active", str(moved[-1]), "größer"))
        delivered = json_output(cli("deliveries", hook, "-o", "json"))[0]
        assert (delivered["kind"], delivered["position"]) == ("delivered", moved[-1])
        assert [attempt["position"] for attempt in json_output(cli("attempts", hook, "-o", "json"))] == moved[::-1]
        assert "delivered" in printed(cli("deliveries", hook))
        assert json_output(cli("replay", hook, "--after", str(moved[0]), "-o", "json"))["cursor"] == moved[0]
        assert sequences(receiver.wait_for(5)) == [*moved, *moved[1:]]
        assert printed(cli("test", hook)).startswith("accepted")
        rotated = json_output(cli("rotate", hook, "--reason", "leaked", "-o", "json"))
        assert rotated["secret"] != secret
        assert not [shown for shown in (cli("show", hook), cli("list", "-o", "json")) if "whsec_" in shown.stdout]
        assert json_output(cli("update", hook, "--alias", "champ*", "-o", "json"))["alias"] == "champ*"
        assert hook in printed(cli("delete", hook, "--reason", "done"))
        assert "WEBHOOK_NOT_FOUND" in error_line(cli("show", hook))


def test_endpoint_that_is_gone_is_disabled_and_resumed(cli: Cli, service: Service, model: str) -> None:
    with Receiver(lambda _, __: 410) as receiver:
        hook = json_output(cli("create", receiver.url, "--model", model, "-o", "json"))["webhook_id"]
        moved = service.move(model, 2)
        service.wait_for_state(hook, v1.WEBHOOK_STATE_PARKED)
        assert "parked" in printed(cli("show", hook))
        assert "410" in printed(cli("deliveries", hook))
        tested = cli("test", hook)
        assert (tested.returncode, tested.stdout.startswith("accepted  no")) == (1, True)
        receiver.answer = lambda _, __: 200
        resumed = json_output(cli("resume", hook, "--skip", str(moved[0]), "--reason", "bad body", "-o", "json"))
        assert resumed["cursor"] == moved[0]
        assert sequences(receiver.wait_for(1)) == moved[1:]
        assert "bad body" in printed(cli("deliveries", hook))


def test_invalid_commands_are_rejected(cli: Cli) -> None:
    assert "INVALID_URL" in error_line(cli("create", "nowhere"), 2)
    assert "WEBHOOK_NOT_FOUND" in error_line(cli("delete", "x"))
    assert "POSITION_AHEAD" in error_line(cli("create", "http://127.0.0.1:9/", "--after", "999999999"))
    assert cli("create", "http://127.0.0.1:9/", "--change", "renamed").returncode == 2
