"""A name belongs to one model, whichever of concurrent creations, registrations and renames is first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from rollforward import v1
from rollforward.errors import from_rpc_error
from tests.integration.up import SECONDS, Up, new_id

pytestmark = pytest.mark.busy

ROUNDS = 80


def reason(call: Callable[[], object]) -> str:
    """Make a call; return the reason of a rejection, or an empty text."""
    try:
        call()
    except grpc.RpcError as error:
        return from_rpc_error(error).reason
    return ""


@pytest.mark.parametrize("registers", [False, True], ids=["create", "register"])
def test_one_of_concurrent_claims_of_name_wins(system: Up, registers: bool) -> None:
    registry, digest = system.registry, system.upload()
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            old, name = f"a{new_id()}", f"b{new_id()}"
            registry.CreateModel(v1.CreateModelRequest(name=old), timeout=SECONDS)

            def rename(old: str = old, name: str = name) -> object:
                return registry.RenameModel(v1.RenameModelRequest(model=old, new_name=name), timeout=SECONDS)

            def take(name: str = name) -> object:
                if registers:
                    return registry.RegisterVersion(
                        v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS
                    )
                return registry.CreateModel(v1.CreateModelRequest(name=name), timeout=SECONDS)

            names, calls = ["rename", "take"], [rename, take]
            order = slice(None, None, 1 if number % 2 else -1)
            refusals = dict(zip(names[order], pool.map(reason, calls[order]), strict=True))
            if registers:  # a version may be registered in either order
                assert refusals["take"] == ""
                assert refusals["rename"] in ("", "MODEL_EXISTS")
            else:
                assert sorted(refusals.values()) == ["", "MODEL_EXISTS"]
            model = registry.GetModel(v1.GetModelRequest(name=name), timeout=SECONDS).model
            assert list(model.former_names) == ([] if refusals["rename"] else [old])
            assert model.latest_version == int(registers)
