"""Reading one's own writes: an answer is never older than what its reader has seen."""

from __future__ import annotations

import time

import pytest

from rollforward import v1
from rollforward.errors import (
    InvalidRequest,
    Unavailable,
)
from tests.integration.up import SECONDS, Up


class TestReadYourWrites:
    def test_an_answer_holds_what_was_seen(self, system: Up, model: str) -> None:
        for version in (1, 2) * 10:
            position = system.move(model, version).position
            headers = (("rollforward-min-position", f"tracking=0, registry={position}"),)
            request = v1.ResolveAliasRequest(model=model, alias="champion")
            answer = system.registry.ResolveAlias(request, metadata=headers, timeout=SECONDS)
            assert (answer.alias.version, answer.position >= position) == (version, True)

    @pytest.mark.parametrize("log", ["registry", "tracking"])
    def test_what_never_comes_is_waited_for_within_the_deadline(self, system: Up, model: str, log: str) -> None:
        headers = (("rollforward-min-position", f"{log}={10**15}"),)
        begun = time.monotonic()
        error = system.refused(system.registry.GetModel, v1.GetModelRequest(name=model), headers, seconds=1.0)
        assert (type(error), error.reason) == (Unavailable, "PROJECTION_BEHIND")
        assert time.monotonic() - begun < 3.0

    def test_of_another_services_log_it_does_not_matter(self, system: Up, model: str) -> None:
        headers = (("rollforward-min-position", f"serving={10**15},other=5"),)
        system.registry.GetModel(v1.GetModelRequest(name=model), metadata=headers, timeout=1.0)

    @pytest.mark.parametrize(
        "header", ["registry", "registry=", "registry=-1", "=5", "a=b", ",", f"registry={'9' * 5000}"]
    )
    def test_a_header_that_names_no_position(self, system: Up, model: str, header: str) -> None:
        headers = (("rollforward-min-position", header),)
        error = system.refused(system.registry.GetModel, v1.GetModelRequest(name=model), headers)
        assert (type(error), error.reason) == (InvalidRequest, "INVALID_MIN_POSITION")
