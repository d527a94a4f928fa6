"""The commands about artifacts: what is in one, getting all of it or a part, and collecting garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.downloads import Reference, Target, fetch, full
from rollforward.cli.options import DEFAULTS, Options, examples
from rollforward.cli.output import grid, pairs
from rollforward.cli.progress import bar

if TYPE_CHECKING:
    from rich.console import RenderableType

artifacts: Final = App(name="artifacts", help="Artifacts: trees of files, each byte verified.")

Part = Annotated[str, Parameter(help="One file, or all below one directory; default all.", show_default=False)]


@artifacts.command(
    name="ls",
    help_epilogue=examples("artifacts ls fraud-detector@champion", "artifacts ls runs:/RUN/model --path weights"),
)
def ls(reference: Reference, /, *, path: Part = "", options: Options = DEFAULTS) -> None:
    """List the files of an artifact, with their sizes and digests."""
    options.connect()
    found = rf.list_files(full(reference), path)
    rows = [(file.path, str(file.size_bytes), file.digest) for file in found]
    options.show(found, lambda: grid(("PATH", "BYTES>", "DIGEST"), rows))


@artifacts.command(
    name="get", help_epilogue=examples("artifacts get fraud-detector@champion ./model --path weights/large.bin")
)
def get(reference: Reference, target: Target = None, /, *, path: Part = "", options: Options = DEFAULTS) -> None:
    """Download an artifact or a part of it, verify every byte, and print the directory that holds the files.

    They keep the paths that they have in the artifact.
    """
    fetch(reference, target, path, options)


@artifacts.command(name="gc", help_epilogue=examples("artifacts gc --dry-run", "artifacts gc --min-age 604800"))
def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would be done.")] = False,
    min_age: Annotated[int, Parameter(help="Seconds: younger files stay. No upload may take longer.")] = 24 * 60 * 60,
    options: Options = DEFAULTS,
) -> None:
    """Collect garbage: set aside the blobs that nothing names, and remove those set aside long enough ago.

    What a version was ever registered with stays, deleted or not, and so do the artifacts of runs and logged models.
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
