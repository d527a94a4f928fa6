"""The `download` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward._printable import printable
from rollforward.cli.identifiers import run_id
from rollforward.cli.options import DEFAULTS, Options
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import print_json

Reference = Annotated[
    str,
    Parameter(name="REFERENCE", help="MODEL@ALIAS, models:/MODEL/VERSION, runs:/RUN/PATH, or sha256:HEX."),
]
Target = Annotated[
    Path | None,
    Parameter(name="TARGET", help="A new or empty directory; default the shared cache, which is read-only."),
]


Part = Annotated[
    str, Parameter(metavar="PATH", help="One file, or everything below one directory; default all.", show_default=False)
]


def download(reference: Reference, target: Target = None, /, *, path: Part = "", options: Options = DEFAULTS) -> None:
    """Download an artifact or a part of it, verify every byte, and print its directory.

    Files keep their paths in the artifact.

    Examples:

        rollforward download fraud-detector@champion ./model
        rollforward download models:/fraud-detector/3 ./model
        rollforward download runs:/cd83fa2c/model ./weights --path weights/large.bin
    """
    options.connect()
    with bar(reference, in_bytes=True) as progress:
        place = rf.download(full(reference), target, path=path, progress=progress)
    if options.json:
        print_json({"path": str(place)})
    else:
        print(printable(str(place)))


def full(reference: str) -> str:
    """Return a reference with its scheme, by default models:/, and the full id of a run."""
    if reference.startswith("runs:/"):
        run, slash, path = reference.removeprefix("runs:/").partition("/")
        return f"runs:/{run_id(run)}{slash}{path}"
    return reference if reference.startswith(("models:", "runs:", "sha256:")) else f"models:/{reference}"
