"""The `artifacts` commands."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.options import DEFAULTS, READ_DEFAULTS, Options, ReadOptions, examples, flag
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import grid, pairs
from rollforward.cli.times import read_duration
from rollforward.cli.tracking.download import Part, Reference, full

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token
    from rich.console import RenderableType

artifacts: Final = App(name="artifacts", help="List files of artifacts, remove unreferenced ones.")


def _seconds(_hint: type, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    span = timedelta(seconds=int(text)) if text.isascii() and text.isdecimal() else read_duration(text)
    if span is None:
        raise ValueError(f"invalid duration {text!r}: expected one such as 24h, 7d or 3600 (seconds)")
    return int(span.total_seconds())


@artifacts.command(
    name="list",
    help_epilogue=examples(
        "artifacts list fraud-detector@champion", "artifacts list runs:/cd83fa2c/model --path weights"
    ),
)
def list_files(reference: Reference, /, *, path: Part = "", options: ReadOptions = READ_DEFAULTS) -> None:
    """List the files of an artifact, with their sizes and digests."""
    options.connect()
    files = rf.list_files(full(reference), path)
    rows = [(file.path, str(file.size_bytes), file.digest) for file in files]
    options.show(files, lambda: grid(("PATH", "BYTES>", "DIGEST"), rows, empty="no files match"))


@artifacts.command(name="gc", help_epilogue=examples("artifacts gc --dry-run", "artifacts gc --min-age 7d"))
def gc(
    *,
    dry_run: Annotated[bool, flag("Only print what would be removed.")] = False,
    min_age: Annotated[
        int,
        Parameter(
            metavar="DURATION",
            converter=_seconds,
            show_default=lambda _: "24h",
            help="Keep younger files; no upload may take longer.",
        ),
    ] = 24 * 60 * 60,
    options: Options = DEFAULTS,
) -> None:
    """Set unreferenced blobs aside, and remove those that were set aside long enough ago.

    Artifacts of versions, runs and logged models stay, even deleted ones.
    """
    options.connect()
    last = rf.v1.CollectGarbageResponse()
    with bar("collect garbage") as advance:
        for last in rf.collect_garbage(dry_run=dry_run, min_age=min_age):
            advance(last.seen, None)
    options.show(last, lambda: _collected(last))


def _collected(last: rf.v1.CollectGarbageResponse) -> RenderableType:
    names = ("seen", "kept", "set_aside", "put_back", "removed", "removed_bytes")
    return pairs({name.replace("_", " "): str(getattr(last, name)) for name in names})
