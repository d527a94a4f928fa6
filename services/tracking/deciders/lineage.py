"""Lineage of a run: the rules for its source, datasets and model outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from eventstore import Kind, Rejected
from rollforward import v1
from services.tracking.deciders.labels import check_tags
from services.validation import check_logged_model_id, check_prose

MAX_DATASET_NAME = 500
MAX_DATASET_NAME_BYTES = 1_500
"""With a metric's key and a digest it must fit an entry of PostgreSQL's index, of at most 2,704 bytes."""
MAX_DATASET_DIGEST = 36
MAX_DATASET_SOURCE = 65_535
MAX_SOURCE_TYPE = 100
MAX_INPUT_TAG = 500
MAX_PACKAGES = 10_000

_COMMIT = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})?")
_SOURCE_TEXTS = {"entry_point": 4096, "git_branch": 500, "git_url": 2000, "runtime": 200, "host": 255}


def check_source(source: v1.RunSource) -> None:
    """Raise `Rejected` INVALID_SOURCE."""
    for name, max_length in _SOURCE_TEXTS.items():
        check_prose(getattr(source, name), f"source {name}", max_length, "INVALID_SOURCE")
    if not _COMMIT.fullmatch(source.git_commit):
        raise _invalid_source(f"invalid commit {source.git_commit[:100]!r}: expected 40 or 64 lower-case hex digits")
    if _has_credentials(source.git_url):
        raise _invalid_source("git_url has credentials. Remove them from the URL")
    if len(source.packages) > MAX_PACKAGES:
        raise _invalid_source(f"too many packages: expected at most {MAX_PACKAGES}, got {len(source.packages)}")
    for package in source.packages:
        check_prose(package, "package", 500, "INVALID_SOURCE")


def _has_credentials(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _invalid_source(f"invalid git_url {url[:300]!r}: expected a URL") from error
    # A user name is part of an SSH address; over HTTP it is a token.
    return parts.password is not None or (parts.scheme in {"http", "https"} and parts.username is not None)


def _invalid_source(message: str) -> Rejected:
    return Rejected(Kind.INVALID, "INVALID_SOURCE", message)


def check_inputs(inputs: Iterable[v1.DatasetInput]) -> None:
    """Raise `Rejected` INVALID_DATASET, INVALID_KEY or INVALID_VALUE."""
    for dataset_input in inputs:
        check_dataset_named(dataset_input.dataset.name, dataset_input.dataset.digest)
        check_prose(dataset_input.dataset.source_type, "dataset source type", MAX_SOURCE_TYPE, "INVALID_DATASET")
        check_prose(dataset_input.dataset.source, "dataset source", MAX_DATASET_SOURCE, "INVALID_DATASET")
        check_tags(dataset_input.tags, MAX_INPUT_TAG)


def check_dataset_named(name: str, digest: str) -> None:
    """Raise `Rejected` INVALID_DATASET unless both are there and not too long."""
    if not (name and digest):
        raise Rejected(Kind.INVALID, "INVALID_DATASET", "a dataset's name or digest is missing", dataset=name[:300])
    check_prose(name, "dataset name", MAX_DATASET_NAME, "INVALID_DATASET")
    if (size := len(name.encode())) > MAX_DATASET_NAME_BYTES:
        message = f"invalid dataset name: expected at most {MAX_DATASET_NAME_BYTES} bytes in UTF-8, got {size}"
        raise Rejected(Kind.INVALID, "INVALID_DATASET", message, dataset=name[:300])
    check_prose(digest, "dataset digest", MAX_DATASET_DIGEST, "INVALID_DATASET")


def check_outputs(outputs: Iterable[v1.ModelOutput]) -> None:
    """Raise `Rejected` INVALID_MODEL_ID."""
    for output in outputs:
        check_logged_model_id(output.model_id)
