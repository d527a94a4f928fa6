"""Errors name what was requested: a model, an alias, a time, an event type."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import NotFound
from tests.integration.cli.command_line import Cli, refused
from tests.integration.up import SECONDS, Up, new_id


@pytest.mark.parametrize("aliases", ["*", "champion"])
def test_rollback_of_unknown_model_names_it(system: Up, aliases: str) -> None:
    request = v1.RollbackRequest(models=f"none-{new_id()}", aliases=aliases, reason="r")
    assert system.refused(system.registry.Rollback, request).reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize(("suffix", "aliases"), [("", "*"), ("", "champion"), ("", "ch*"), ("*", "*"), ("*", "x")])
def test_rollback_of_unset_alias_names_it(system: Up, model: str, suffix: str, aliases: str) -> None:
    request = v1.RollbackRequest(models=model + suffix, aliases=aliases, reason="r")
    error = system.refused(system.registry.Rollback, request)
    assert (type(error), error.reason) == (NotFound, "ALIAS_NOT_FOUND")
    assert (error.metadata["model"], error.metadata["alias"]) == (model + suffix, aliases)


def test_rollback_by_former_name_is_rejected(system: Up, model: str) -> None:
    renamed = v1.RenameModelRequest(model=model, new_name=f"{model}-new")
    system.registry.RenameModel(renamed, timeout=SECONDS)
    request = v1.RollbackRequest(models=model, aliases="*", reason="r")
    assert system.refused(system.registry.Rollback, request).reason == "MODEL_RENAMED"


def test_error_of_past_query_names_time(system: Up, model: str) -> None:
    system.move(model, 1)
    for at, expected in (
        (v1.AsOf(time=Timestamp(seconds=1_577_836_800)), "2020-01-01T00:00:00Z"),
        (v1.AsOf(position=1), "position 1"),
    ):
        request = v1.ResolveAliasRequest(model=model, alias="champion", at=at)
        error = system.refused(system.registry.ResolveAlias, request)
        assert error.reason == "ALIAS_NOT_FOUND"
        assert expected in error.message


@pytest.mark.parametrize(("typed", "near"), [("AliasMove", "AliasMoved"), ("Versionregistered", "VersionRegistered")])
def test_unknown_event_type_is_rejected_with_suggestions(system: Up, typed: str, near: str) -> None:
    error = system.refused(system.audit.ListEvents, v1.ListEventsRequest(type=typed))
    assert error.reason == "UNKNOWN_EVENT_TYPE"
    assert near in error.metadata["near"].split(",")


@pytest.mark.parametrize(
    "typed", ["AliasMoved", "rollforward.v1.AliasMoved", "RunStarted", "PodStarted", "WebhookCreated"]
)
def test_event_types_of_all_logs_are_known(system: Up, typed: str) -> None:
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
def test_command_line_rejects_unknown_names(cli: Cli, line: str, reason: str) -> None:
    assert refused(cli(*line.split()), code=2 if reason.startswith("UNKNOWN") else 1) == reason
