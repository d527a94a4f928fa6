"""What every command takes: where the services are, who acts, and how answers are printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

from rollforward.cli.failures import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

    def show(self, answer: Message | Sequence[Any] | Mapping[str, Any], table: Callable[[], RenderableType]) -> None:
        """Print an answer: its messages, tuples and values as JSON, or the table."""
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


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivering(Reading):
    """The options of every command, where the variable does not count: it says where new runs go."""

    server: Annotated[
        str | None, Parameter(help="HOST:PORT, or service=HOST:PORT,...; default where each job sent.")
    ] = None


DEFAULTS: Final = Options()
READING: Final = Reading()
DELIVERING: Final = Delivering()

_VERSION: Final = re.compile(r"v?([1-9][0-9]{0,9})", re.ASCII)


def read_version(text: str) -> int:
    """Read a version, "3" or "v3"; raises ValueError."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a version, such as 3 or v3")
    return int(found[1])


def _version_number(_hint: type, tokens: Sequence[Token]) -> int:
    return read_version(tokens[0].value)


VersionNumber = Annotated[int, Parameter(name="VERSION", converter=_version_number, help="3 or v3.")]
ModelName = Annotated[str, Parameter(name="MODEL", help="The model's name.")]
AliasName = Annotated[str, Parameter(name="MODEL@ALIAS", help="Such as fraud-detector@champion.")]
RunId = Annotated[str, Parameter(name="RUN", help="The run's id, as `runs list` shows it.")]
Experiments = Annotated[
    tuple[str, ...],
    Parameter(name="--experiment", negative="", show_default=False, help="By name, or id:NUMBER; may be repeated."),
]
At = Annotated[str | None, Parameter(help="A revision, or a time with its zone: 17, 2026-11-03T14:00Z.")]
Time = Annotated[str | None, Parameter(help="A time with its zone, such as 2026-11-03T14:00Z.")]
Since = Annotated[str | None, Parameter(help="Recorded then or later: a time with its zone, 2026-11-03T14:00Z.")]
Until = Annotated[str | None, Parameter(help="Recorded before then.")]
Filter = Annotated[str, Parameter(help="Such as \"name LIKE 'fraud%' AND tags.team = 'risk'\".", show_default=False)]
OrderBy = Annotated[str, Parameter(help='Such as "updated DESC".', show_default=False)]
Deleted = Annotated[bool, Parameter(name="--all", negative="", help="Deleted ones too.")]
Description = Annotated[str, Parameter(help="What it is.", show_default=False)]
Cause = Annotated[str, Parameter(help="request, rollback, schedule or expiry.", show_default=False)]
Reason = Annotated[str, Parameter(help="Why; it stays in the history.", show_default=False)]
ExpectedRevision = Annotated[
    int | None, Parameter(help="The alias's revision that you saw, 0 for not set: another one refuses the change.")
]
RequestId = Annotated[str | None, Parameter(help="Makes a repetition of this very command harmless.")]
Keys = Annotated[str, Parameter(name="KEY", required=True, help="One or more.")]
Pairs = Annotated[str, Parameter(name="KEY=VALUE", required=True, help="One or more.")]
Limit = Annotated[int, Parameter(help="At most so many.")]


def pairs_of(words: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE words. Raises UsageError."""
    found = [word.partition("=") for word in words]
    if not found or not all(key and equals for key, equals, _ in found):
        raise UsageError("tags are given as KEY=VALUE")
    return {key: value for key, _, value in found}


def examples(*lines: str) -> str:
    """The closing part of a command's help."""
    return "Examples:\n\n" + "\n".join(f"    rollforward {line}" for line in lines)
