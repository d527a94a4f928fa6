"""The process's default connection, and functions that use it."""

from __future__ import annotations

import functools
import inspect
import threading
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from rollforward._transport.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")
_R = TypeVar("_R")

_default: Final[dict[str, Connection]] = {}
_lock: Final = threading.Lock()


def default_connection() -> Connection:
    """Return the process's default connection; create it from the environment if there is none yet."""
    with _lock:
        if "connection" not in _default:
            _default["connection"] = Connection()
        return _default["connection"]


def set_default_connection(connection: Connection) -> None:
    """Make a connection the process's default. The previous one stays open."""
    with _lock:
        _default["connection"] = connection


def close() -> None:
    """Close the process's default connection, if there is one, and forget it."""
    with _lock:
        connection = _default.pop("connection", None)
    if connection is not None:
        connection.close()


def default_client_function(
    name: str,
    resource: Callable[[Connection], _T],
    method: Callable[Concatenate[_T, _P], _R],
    *,
    connection_of: Callable[..., Connection | None] | None = None,
) -> Callable[_P, _R]:
    """Return a function that calls a resource's method over the default connection.

    It has the method's parameters, without `self`, and its docstring.

    Args:
        name: The name of the function, and of the variable that it is assigned to.
        resource: The class of the method.
        method: The method.
        connection_of: A function that returns the connection implied by a call's arguments; None for the default.
    """

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        implied = None if connection_of is None else connection_of(*args, **kwargs)
        return method(resource(implied or default_connection()), *args, **kwargs)

    signature = inspect.signature(method)
    without_self = list(signature.parameters.values())[1:]
    call.__name__ = call.__qualname__ = name
    call.__dict__["__signature__"] = signature.replace(parameters=without_self)
    del call.__dict__["__wrapped__"]
    return call
