"""The client's attributes, and the functions of the package that use the default client."""

from __future__ import annotations

import inspect
import pickle
import threading
from typing import Any

import rollforward as rf
from rollforward import v1
from tests.unit.client.conftest import Serve, Service


class Registry(Service):
    """A registry that accepts every move."""

    def __init__(self) -> None:
        self.moved: list[str] = []

    def MoveAlias(self, request: v1.MoveAliasRequest, _context: Any) -> v1.MoveAliasResponse:  # noqa: N802
        self.moved.append(f"{request.model}@{request.alias}")
        return v1.MoveAliasResponse(alias=v1.Alias(version=request.version), moved=True)


def test_every_attribute_is_created_once_without_a_network() -> None:
    with rf.Client("127.0.0.1:1") as client:
        attributes = [name for name, _ in inspect.getmembers(rf.Client, lambda it: hasattr(it, "attrname"))]
        assert {"aliases", "artifacts", "audit", "models", "runs", "system", "versions"} <= set(attributes)
        for name in attributes:
            assert getattr(client, name) is getattr(client, name)


def test_one_client_serves_many_threads(serve: Serve) -> None:
    registry = Registry()
    client = serve(registry, v1.add_RegistryServiceServicer_to_server)
    threads = [threading.Thread(target=client.aliases.move, args=(f"m{n}@a", n + 1)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(registry.moved) == [f"m{n}@a" for n in range(8)]


def test_functions_use_the_last_connected_client(serve: Serve) -> None:
    registry = Registry()
    served = serve(registry, v1.add_RegistryServiceServicer_to_server)
    with rf.connect(served.address):
        assert rf.move_alias("m@a", 3).version == 3
    assert registry.moved == ["m@a"]
    rf.close()


def test_functions_have_the_methods_signatures_without_self() -> None:
    method, function = rf.Client("127.0.0.1:1").aliases.move, rf.move_alias
    assert inspect.signature(function) == inspect.signature(method)
    assert inspect.getdoc(function) == inspect.getdoc(method)
    assert function.__name__ == "move_alias"
    assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301


def test_functions_have_the_names_of_their_variables() -> None:
    functions = {name: getattr(rf, name) for name in dir(rf) if inspect.isfunction(getattr(rf, name))}
    assert {name: function.__name__ for name, function in functions.items()} == {name: name for name in functions}
    assert not [name for name, function in functions.items() if "connection" in inspect.signature(function).parameters]
