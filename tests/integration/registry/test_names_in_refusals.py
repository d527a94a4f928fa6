"""A refusal names what was asked for: a model, an alias, a time, a type of event."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import NotFound
from tests.integration.cli.command_line import Cli, refused
from tests.integration.up import SECONDS, Up, new_id


@pytest.mark.parametrize("aliases", ["*", "champion"])
def test_a_rollback_of_a_model_that_there_is_not_says_so(system: Up, aliases: str) -> None:
    request = v1.RollbackRequest(models=f"none-{new_id()}", aliases=aliases, reason="r")
    assert system.refused(system.registry.Rollback, request).reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize(("suffix", "aliases"), [("", "*"), ("", "champion"), ("", "ch*"), ("*", "*"), ("*", "x")])
def test_a_rollback_of_an_alias_that_is_not_set_says_so(system: Up, model: str, suffix: str, aliases: str) -> None:
    request = v1.RollbackRequest(models=model + suffix, aliases=aliases, reason="r")
    error = system.refused(system.registry.Rollback, request)
    assert (type(error), error.reason) == (NotFound, "ALIAS_NOT_FOUND")
    assert (error.metadata["model"], error.metadata["alias"]) == (model + suffix, aliases)


def test_a_rollback_by_a_former_name_says_the_one_of_now(system: Up, model: str) -> None:
    renamed = v1.RenameModelRequest(model=model, new_name=f"{model}-new")
    system.registry.RenameModel(renamed, timeout=SECONDS)
    request = v1.RollbackRequest(models=model, aliases="*", reason="r")
    assert system.refused(system.registry.Rollback, request).reason == "MODEL_RENAMED"


def test_who_asks_for_a_time_is_told_of_that_time(system: Up, model: str) -> None:
    system.move(model, 1)
    for at, told in (
        (v1.AsOf(time=Timestamp(seconds=1_577_836_800)), "2020-01-01T00:00:00Z"),
        (v1.AsOf(position=1), "position 1"),
    ):
        request = v1.ResolveAliasRequest(model=model, alias="champion", at=at)
        error = system.refused(system.registry.ResolveAlias, request)
        assert error.reason == "ALIAS_NOT_FOUND"
        assert told in error.message


@pytest.mark.parametrize(("typed", "near"), [("AliasMove", "AliasMoved"), ("Versionregistered", "VersionRegistered")])
def test_an_unknown_type_of_event_is_refused_with_near_ones(system: Up, typed: str, near: str) -> None:
    error = system.refused(system.audit.ListEvents, v1.ListEventsRequest(type=typed))
    assert error.reason == "UNKNOWN_EVENT_TYPE"
    assert near in error.metadata["near"].split(",")


@pytest.mark.parametrize(
    "typed", ["AliasMoved", "rollforward.v1.AliasMoved", "RunStarted", "PodStarted", "WebhookCreated"]
)
def test_every_type_of_event_is_known(system: Up, typed: str) -> None:
    system.audit.ListEvents(v1.ListEventsRequest(type=typed), timeout=SECONDS)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("deployments list nosuch", "MODEL_NOT_FOUND"),
        ("audit list --model nosuch", "MODEL_NOT_FOUND"),
        ("audit export --model nosuch", "MODEL_NOT_FOUND"),
        ("audit list --type Foo", "UNKNOWN_EVENT_TYPE"),
        ("rollback nosuch", "MODEL_NOT_FOUND"),
        ("rollback nosuch@champion", "MODEL_NOT_FOUND"),
        ("aliases get nosuch@champion", "MODEL_NOT_FOUND"),
        ("aliases list nosuch", "MODEL_NOT_FOUND"),
        ("aliases history nosuch@champion", "MODEL_NOT_FOUND"),
        ("schedules list nosuch", "MODEL_NOT_FOUND"),
        ("versions list nosuch", "MODEL_NOT_FOUND"),
    ],
)
def test_the_command_line_refuses_what_there_is_not(cli: Cli, line: str, reason: str) -> None:
    assert refused(cli(*line.split()), code=2 if reason.startswith("UNKNOWN") else 1) == reason
