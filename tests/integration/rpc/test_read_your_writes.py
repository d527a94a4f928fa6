"""Reading one's own writes: an answer is never older than what its reader has seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import rollforward as rf
from rollforward import v1
from rollforward.errors import AlreadyExists, Conflict, InvalidRequest
from tests.integration.up import SECONDS, Up, new_id

pytestmark = pytest.mark.busy


class TestReadYourWrites:
    def test_an_answer_holds_what_was_seen(self, system: Up, model: str) -> None:
        for version in (1, 2) * 10:
            position = system.move(model, version).position
            headers = (("rollforward-min-position", f"tracking=0, registry={position}"),)
            request = v1.ResolveAliasRequest(model=model, alias="champion")
            answer = system.registry.ResolveAlias(request, metadata=headers, timeout=SECONDS)
            assert (answer.alias.version, answer.position >= position) == (version, True)

    @pytest.mark.parametrize("log", ["registry", "tracking"])
    def test_a_position_that_the_log_has_not_reached_is_refused(self, system: Up, model: str, log: str) -> None:
        for position in (system.heads()[log] + 1, 10**15):
            headers = (("rollforward-min-position", f"{log}={position}"),)
            error = system.refused(system.registry.GetModel, v1.GetModelRequest(name=model), headers)
            assert (type(error), error.reason) == (InvalidRequest, "POSITION_AHEAD")
            assert error.metadata == {"log": log, "position": str(position)}

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


class TestReadWhatRefusedYou:
    def test_it_is_found_by_whoever_comes_second(self, system: Up) -> None:
        both = Barrier(8)

        def get_or_create(client: rf.Client, name: str) -> str:
            both.wait(SECONDS)
            try:
                return client.experiments.create(name)
            except AlreadyExists:
                return client.experiments.get(name).experiment_id

        connections = [rf.Client(system.address) for _ in range(both.parties)]
        with ThreadPoolExecutor(both.parties) as pool:
            for _ in range(10):
                name = new_id()
                found = [pool.submit(get_or_create, client, name) for client in connections]
                assert len({one.result() for one in found}) == 1
        for client in connections:
            client.close()

    def test_a_refusal_says_where_it_was_judged(self, system: Up, model: str) -> None:
        with rf.Client(system.address) as client:
            target = f"{model}@champion"
            client.aliases.move(target, 1)
            with rf.Client(system.address) as other:
                head = other.aliases.move(target, 2).revision
            with pytest.raises(Conflict):
                client.aliases.move(target, 1, expected_revision=1)
            assert client.positions["registry"] >= head
            assert client.aliases.resolve(target).version == 2
