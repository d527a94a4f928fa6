"""rollforward: track runs, register models, move aliases, follow them, and roll back.

Create a `Client`, which has an attribute for each kind of thing: `client.aliases.move("fraud@champion", 3)`. The
functions of this package, such as `move_alias`, do the same with the client that `connect` created, else with one for
ROLLFORWARD_URI.

The names are listed in `__init__.pyi`. Each is imported when it is first used: gRPC takes a tenth of a second to
import, and a command that only prints its help need not wait for it.
"""

from typing import TYPE_CHECKING

import lazy_loader

_get, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)

if not TYPE_CHECKING:  # to a type checker, a module with this function has every name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - slow to import, and seldom needed

            return version("rollforward")
        return _get(name)


def __dir__() -> list[str]:
    return sorted({*_names(), "__version__"})
