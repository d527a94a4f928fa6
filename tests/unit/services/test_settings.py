"""Settings from environment variables."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from eventstore.errors import Rejected
from services.settings import Settings, from_environment


def test_number_is_parsed() -> None:
    assert from_environment({}).attendance_patience == 60
    assert from_environment({"ROLLFORWARD_ATTENDANCE_PATIENCE": "5"}).attendance_patience == 5


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5"])
def test_invalid_timeout_is_rejected(value: str) -> None:
    with pytest.raises(Rejected) as caught:
        from_environment({"ROLLFORWARD_ATTENDANCE_PATIENCE": value})
    assert caught.value.reason == "INVALID_SETTING"
    assert caught.value.metadata == {"name": "ROLLFORWARD_ATTENDANCE_PATIENCE"}


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.type == "int"])
def test_every_number_can_be_set(name: str) -> None:
    assert getattr(from_environment({f"ROLLFORWARD_{name.upper()}": "1"}), name) == 1


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        ({}, False),
        ({"nats": ""}, True),
        ({"database": ""}, True),
        ({"database": "rows"}, True),
        ({"services": ("tracking",)}, True),
        ({"services": ("registry",)}, False),
        ({"services": ("registry",), "artifacts": ""}, True),
        ({"services": ("webhooks",)}, False),
        ({"services": ("webhooks",), "webhook_key": ""}, True),
    ],
)
def test_data_directory_is_needed_only_without_external_storage(change: dict[str, Any], keeps: bool) -> None:
    external = Settings(
        services=("serving",), nats="nats://n", database="postgresql://p", artifacts="s3://b", webhook_key="k"
    )
    assert replace(external, **change).keeps_files is keeps
