"""The command that downloads an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.options import DEFAULTS, Options
from rollforward.cli.output import print_json
from rollforward.cli.progress import bar

Reference = Annotated[
    str,
    Parameter(
        name="REFERENCE", help="MODEL@ALIAS, models:/MODEL/VERSION, runs:/RUN/PATH, or sha256:... of an artifact."
    ),
]
Target = Annotated[
    Path | None, Parameter(name="TARGET", help="A new or empty directory; default a cache, do not write there.")
]


def download(reference: Reference, target: Target = None, /, *, options: Options = DEFAULTS) -> None:
    """Download an artifact, verify every byte, and print the directory that holds its files.

    For example:

        rollforward download fraud-detector@champion ./model
        rollforward download models:/fraud-detector/3 ./model
    """
    fetch(reference, target, "", options)


def fetch(reference: str, target: Path | None, path: str, options: Options) -> None:
    """Download an artifact or the part of it at a path, with a bar, and print where it is."""
    options.connect()
    with bar(reference, in_bytes=True) as progress:
        place = rf.download(full(reference), target, path=path, progress=progress)
    if options.json:
        print_json({"path": str(place)})
    else:
        print(place)


def full(reference: str) -> str:
    """A reference as the SDK reads it: what has no scheme is a model's."""
    return reference if reference.startswith(("models:", "runs:", "sha256:")) else f"models:/{reference}"
