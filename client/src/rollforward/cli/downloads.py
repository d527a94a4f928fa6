"""The command that downloads an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.options import DEFAULTS, Options
from rollforward.cli.output import print_json
from rollforward.cli.progress import bar


def download(
    reference: Annotated[
        str, Parameter(help="MODEL@ALIAS, models:/MODEL/VERSION, runs:/RUN/PATH, or sha256:... of an artifact.")
    ],
    target: Annotated[
        Path | None, Parameter(help="A new or empty directory; default a cache, do not write there.")
    ] = None,
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Download an artifact, verify every byte, and print the directory that holds its files.

    For example:

        rollforward download fraud-detector@champion ./model
        rollforward download models:/fraud-detector/3 ./model
    """
    options.connect()
    known = reference.startswith(("models:", "runs:", "sha256:"))
    with bar(reference, in_bytes=True) as progress:
        path = rf.download(reference if known else f"models:/{reference}", target, progress=progress)
    if options.json:
        print_json({"path": str(path)})
    else:
        print(path)
