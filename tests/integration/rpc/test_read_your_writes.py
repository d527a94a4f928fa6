"""Read your writes: a response is never older than what its reader has seen."""

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
    def test_response_includes_seen_position(self, system: Up, model: str) -> None:
        for version in (1, 2) * 10:
            position = system.move(model, version).position
            headers = (("rollforward-min-position", f"tracking=0, registry={position}"),)
            request = v1.ResolveAliasRequest(model=model, alias="champion")
            response = system.registry.ResolveAlias(request, metadata=headers, timeout=SECONDS)
            assert (response.alias.version, response.position >= position) == (version, True)

    @pytest.mark.parametrize("log", ["registry", "tracking"])
    def test_position_ahead_of_log_is_rejected(self, system: Up, model: str, log: str) -> None:
        for position in (system.heads()[log] + 1, 10**15):
            headers = (("rollforward-min-position", f"{log}={position}"),)
            error = system.refused(system.registry.GetModel, v1.GetModelRequest(name=model), headers)
            assert (type(error), error.reason) == (InvalidRequest, "POSITION_AHEAD")
            assert error.metadata == {"log": log, "position": str(position)}

    def test_position_of_unrelated_log_is_ignored(self, system: Up, model: str) -> None:
        headers = (("rollforward-min-position", f"serving={10**15},other=5"),)
        system.registry.GetModel(v1.GetModelRequest(name=model), metadata=headers, timeout=1.0)

    @pytest.mark.parametrize(
        "header", ["registry", "registry=", "registry=-1", "=5", "a=b", ",", f"registry={'9' * 5000}"]
    )
    def test_invalid_position_header_is_rejected(self, system: Up, model: str, header: str) -> None:
        headers = (("rollforward-min-position", header),)
        error = system.refused(system.registry.GetModel, v1.GetModelRequest(name=model), headers)
        assert (type(error), error.reason) == (InvalidRequest, "INVALID_MIN_POSITION")


class TestReadAfterRejection:
    def test_loser_of_creation_race_reads_existing_object(self, system: Up) -> None:
        barrier = Barrier(8)

        def get_or_create(client: rf.Client, name: str) -> str:
            barrier.wait(SECONDS)
            try:
                return client.experiments.create(name)
            except AlreadyExists:
                return client.experiments.get(name).experiment_id

        connections = [rf.Client(system.address) for _ in range(barrier.parties)]
        with ThreadPoolExecutor(barrier.parties) as pool:
            for _ in range(10):
                name = new_id()
                futures = [pool.submit(get_or_create, client, name) for client in connections]
                assert len({future.result() for future in futures}) == 1
        for client in connections:
            client.close()

    def test_rejection_has_position_of_its_decision(self, system: Up, model: str) -> None:
        with rf.Client(system.address) as client:
            target = f"{model}@champion"
            client.aliases.move(target, 1)
            with rf.Client(system.address) as other:
                head = other.aliases.move(target, 2).revision
            with pytest.raises(Conflict):
                client.aliases.move(target, 1, expected_revision=1)
            assert client.positions["registry"] >= head
            assert client.aliases.resolve(target).version == 2
