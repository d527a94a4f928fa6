"""Shared options: the services' address, the actor, the output format, and common arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from rollforward.cli.output.failures import UsageError
from rollforward.cli.times import read_point, read_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cyclopts import Token
    from google.protobuf.message import Message
    from rich.console import RenderableType

    from rollforward.client import Client

EVERYWHERE: Final = Group("Options of every command", sort_key=9)

# For the help of the whole program.
EVERYWHERE_HELP: Final = """\
Options of every command:

    --server ADDRESS     HOST:PORT, or service=HOST:PORT,...; default ROLLFORWARD_URI, else localhost:50051.
    -o, --output FORMAT  table, wide (all columns, uncut) or json.
    --timeout SECONDS    For each call, with its retries; default 10.
    --stale              Do not wait for the latest events: results may lag by up to 0.2 s.
    --epoch N            The epoch that revisions were read in; see `rollforward status`.
    --actor NAME         Who makes the change; default ROLLFORWARD_ACTOR, else the operating system's user."""


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """The options of commands that only read."""

    server: Annotated[
        str | None,
        Parameter(
            env_var="ROLLFORWARD_URI",
            metavar="ADDRESS",
            help="HOST:PORT, or service=HOST:PORT,...; default localhost:50051.",
        ),
    ] = None
    output: Annotated[
        Literal["table", "wide", "json"],
        Parameter(name=("--output", "-o"), metavar="FORMAT", help="table, wide (all columns, uncut) or json."),
    ] = "table"
    timeout: Annotated[float, Parameter(metavar="SECONDS", help="For each call, with its retries.")] = 10.0
    stale: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Do not wait for the latest events: results may lag by up to 0.2 s.",
        ),
    ] = False

    def connect(self) -> Client:
        """Create the client for the SDK's functions."""
        from rollforward.client import connect  # noqa: PLC0415 - gRPC is slow to load, and help needs none

        return connect(self.server, actor=self._actor, timeout=self.timeout, read_at_head=not self.stale)

    @property
    def _actor(self) -> str | None:
        return None

    @property
    def json(self) -> bool:
        """Return whether results are printed as JSON."""
        return self.output == "json"

    @property
    def wide(self) -> bool:
        """Return whether tables have all columns, uncut."""
        return self.output == "wide"

    def show(self, result: Message | Sequence[Any] | Mapping[str, Any], table: Callable[[], RenderableType]) -> None:
        """Print a result as JSON, or as the table."""
        from rollforward.cli.output.tables import print_json, print_table  # noqa: PLC0415

        if self.json:
            print_json(result)
        else:
            print_table(table(), wide=self.wide)


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ReadOptions):
    """The options of every other command."""

    actor: Annotated[
        str | None,
        Parameter(
            env_var="ROLLFORWARD_ACTOR",
            metavar="NAME",
            help="Who makes the change; default the operating system's user.",
        ),
    ] = None
    epoch: Annotated[
        int | None,
        Parameter(
            metavar="N",
            help="The epoch that revisions were read in, if the log ever lost events; see `rollforward status`.",
        ),
    ] = None

    def connect(self) -> Client:
        """Create the client for the SDK's functions."""
        client = ReadOptions.connect(self)
        if self.epoch:
            client.assume_epoch(self.epoch)
        return client

    @property
    def _actor(self) -> str | None:
        return self.actor


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions(ReadOptions):
    """The options of `sync`, which ignores ROLLFORWARD_URI: that variable is for new runs."""

    server: Annotated[
        str | None,
        Parameter(
            metavar="ADDRESS", help="HOST:PORT, or service=HOST:PORT,...; default the address that each job used."
        ),
    ] = None


DEFAULTS: Final = Options()
READ_DEFAULTS: Final = ReadOptions()
SYNC_DEFAULTS: Final = SyncOptions()

_VERSION: Final = re.compile(r"v?([1-9][0-9]{0,9})", re.ASCII)


def read_version(text: str) -> int:
    """Return the number of a version written "3" or "v3".

    Raises:
        ValueError: See the message.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid version {text!r}: expected a number such as 3 or v3")
    return int(match[1])


def _version_number(_hint: type, tokens: Sequence[Token]) -> int:
    return read_version(tokens[0].value)


def _time(_hint: type, tokens: Sequence[Token]) -> str:
    return read_time(tokens[0].value)


def future_time(_hint: type, tokens: Sequence[Token]) -> str:
    """Read a time; a duration counts from now into the future."""
    return read_time(tokens[0].value, future=True)


def _point(_hint: type, tokens: Sequence[Token]) -> str:
    return read_point(tokens[0].value)


VersionNumber = Annotated[int, Parameter(name="VERSION", converter=_version_number, help="3 or v3.")]
ModelName = Annotated[str, Parameter(name="MODEL", help="The model's name.")]
AnyModel = Annotated[str, Parameter(name="MODEL", help="One model; default all.", show_default=False)]
AliasName = Annotated[str, Parameter(name="MODEL@ALIAS", help="Such as fraud-detector@champion.")]
RunId = Annotated[str, Parameter(name="RUN", help="The run's id, a unique prefix of it, or its unique name.")]
Experiments = Annotated[
    tuple[str, ...],
    Parameter(
        name="--experiment",
        metavar="EXPERIMENT",
        negative="",
        show_default=False,
        help="A name, or id:NUMBER; may be repeated.",
    ),
]
At = Annotated[
    str | None,
    Parameter(metavar="POINT", converter=_point, help="A revision or a time: 17, 2026-11-03T14:00Z, 2h, yesterday."),
]
PointOption = Annotated[str | None, Parameter(metavar="POINT", converter=_point)]
Since = Annotated[
    str | None,
    Parameter(
        metavar="TIME",
        converter=_time,
        help="Only at this time or later: 2026-11-03T14:00Z, 2026-11-03, 2h, yesterday.",
    ),
]
Until = Annotated[str | None, Parameter(metavar="TIME", converter=_time, help="Only before this time.")]
Filter = Annotated[
    str,
    Parameter(
        name="--filter",
        metavar="FILTER",
        help="Such as \"name LIKE 'fraud%' AND tags.team = 'risk'\".",
        show_default=False,
    ),
]
OrderBy = Annotated[str, Parameter(metavar="FIELD", help='Such as "updated_at DESC".', show_default=False)]
Deleted = Annotated[bool, Parameter(name="--all", negative="", show_default=False, help="Include deleted items.")]
Description = Annotated[str, Parameter(metavar="TEXT", help="The description.", show_default=False)]
Cause = Annotated[
    str, Parameter(metavar="CAUSE", help="One of request, rollback, schedule, expiry.", show_default=False)
]
ActorFilter = Annotated[str, Parameter(name="--actor", metavar="NAME", help="Who made the change.", show_default=False)]
ModelPattern = Annotated[
    str, Parameter(name="--model", metavar="PATTERN", help="Models: a name, or a pattern with * and ?.")
]
AliasPattern = Annotated[
    str, Parameter(name="--alias", metavar="PATTERN", help="Aliases: a name, or a pattern with * and ?.")
]
Reason = Annotated[str, Parameter(metavar="TEXT", help="Why; recorded in the history.", show_default=False)]
ExpectedRevision = Annotated[
    int | None,
    Parameter(metavar="REVISION", help="Fail unless the alias is at this revision; 0 means that it is not set."),
]
RequestId = Annotated[str | None, Parameter(metavar="ID", help="An id to repeat the same command safely.")]
Keys = Annotated[str, Parameter(name="KEY", required=True, help="One or more.")]
Pairs = Annotated[str, Parameter(name="KEY=VALUE", required=True, help="One or more.")]
Tags = Annotated[
    tuple[str, ...],
    Parameter(name="--tag", metavar="KEY=VALUE", negative="", show_default=False, help="May be repeated."),
]
NewName = Annotated[str, Parameter(name="NEW-NAME", help="The new name.")]
NewText = Annotated[str, Parameter(name="TEXT", help="The new description.")]
Limit = Annotated[int, Parameter(metavar="N", validator=Number(gte=1), help="Maximum number of results.")]


def flag(help: str, *, name: str | None = None) -> Parameter:  # noqa: A002 - the name of cyclopts' parameter
    """Return the parameter of an option without a value."""
    return Parameter(name=name, negative="", show_default=False, help=help)


def read_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Parse KEY=VALUE texts.

    Raises:
        UsageError: See the message.
    """
    parts = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, parts, strict=True):
        if not (key and equals):
            raise UsageError(f"invalid tag {text!r}: expected KEY=VALUE")
    return {key: value for key, _, value in parts}


def examples(*lines: str) -> str:
    """Return examples for the end of a command's help."""
    return "Examples:\n\n" + "\n".join(f"    rollforward {line}" for line in lines)
