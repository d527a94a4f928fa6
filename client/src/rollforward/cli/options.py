"""What every command takes: where the services are, who acts, and how answers are printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cyclopts import Token
    from google.protobuf.message import Message
    from rich.console import RenderableType

    from rollforward.connection import Connection

EVERYWHERE: Final = Group("Options of every command", sort_key=9)


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The options of every command."""

    server: Annotated[
        str | None,
        Parameter(env_var="ROLLFORWARD_URI", help="HOST:PORT, or service=HOST:PORT,...; default localhost:50051."),
    ] = None
    output: Annotated[
        Literal["table", "json"], Parameter(name=("--output", "-o"), help="A table, or one JSON document.")
    ] = "table"
    timeout: Annotated[float, Parameter(help="Seconds for each call, with its retries.")] = 10.0

    def connect(self) -> Connection:
        """Make the connection that the SDK's functions use from now on."""
        from rollforward.connection import connect  # noqa: PLC0415 - gRPC is slow to load, and help needs none

        return connect(self.server, actor=self._actor, timeout=self.timeout)

    @property
    def _actor(self) -> str | None:
        return None

    @property
    def json(self) -> bool:
        """Whether answers are printed as JSON."""
        return self.output == "json"

    def show(self, answer: Message | Sequence[Message], table: Callable[[], RenderableType]) -> None:
        """Print an answer: its messages as JSON, or the table."""
        from rollforward.cli.output import print_json, print_table  # noqa: PLC0415

        if self.json:
            print_json(answer)
        else:
            print_table(table())


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Reading):
    """The options of every command to whom it matters who acts."""

    actor: Annotated[
        str | None, Parameter(env_var="ROLLFORWARD_ACTOR", help="Who acts; default the user of this machine.")
    ] = None

    @property
    def _actor(self) -> str | None:
        return self.actor


DEFAULTS: Final = Options()
READING: Final = Reading()

_VERSION: Final = re.compile(r"v?([1-9][0-9]{0,9})", re.ASCII)


def version_number(_hint: type, tokens: Sequence[Token]) -> int:
    """Read a version, "3" or "v3"; raises ValueError."""
    found = _VERSION.fullmatch(tokens[0].value)
    if found is None:
        raise ValueError(f"{tokens[0].value!r} is not a version, such as 3 or v3")
    return int(found[1])


VersionNumber = Annotated[int, Parameter(converter=version_number)]
Reason = Annotated[str, Parameter(help="Why; it stays in the history.", show_default=False)]
ExpectedRevision = Annotated[
    int | None, Parameter(help="The alias's revision that you saw, 0 for not set: another one refuses the change.")
]
RequestId = Annotated[str | None, Parameter(help="Makes a repetition of this very command harmless.")]
Limit = Annotated[int, Parameter(help="At most so many.")]


def examples(*lines: str) -> str:
    """The closing part of a command's help."""
    return "Examples:\n\n" + "\n".join(f"    rollforward {line}" for line in lines)
