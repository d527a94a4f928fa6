"""Where artifacts are, as MLflow's URIs say it: of a run, of a logged model, or the files of a digest."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from services.mlflow_rest.errors import invalid

SCHEME: Final = "mlflow-artifacts:"
_RUN: Final = re.compile(r"([0-9]+)/([0-9a-f]{32})/artifacts(?:/(.*))?")
_MODEL: Final = re.compile(r"([0-9]+)/models/(m-[0-9a-f]{32})/artifacts(?:/(.*))?")
_DIGEST: Final = re.compile(r"digests/([0-9a-f]{64})(?:/(.*))?")


@dataclass(frozen=True, slots=True)
class OfRun:
    """A path among the artifacts of a run; empty for all of them."""

    run_id: str
    path: str


@dataclass(frozen=True, slots=True)
class OfModel:
    """A path among the files of a logged model; empty for all of them."""

    model_id: str
    path: str


@dataclass(frozen=True, slots=True)
class OfDigest:
    """A path among the files of a digest, which never change; empty for all of them."""

    digest: str
    path: str


Place: TypeAlias = OfRun | OfModel | OfDigest


def place_at(path: str) -> Place:
    """Return the place of a path below the artifacts proxy.

    Raises:
        MlflowError: INVALID_PARAMETER_VALUE when it leads elsewhere.
    """
    path = path.strip("/")
    if match := _RUN.fullmatch(path):
        return OfRun(match[2], checked(match[3] or ""))
    if match := _MODEL.fullmatch(path):
        return OfModel(match[2], checked(match[3] or ""))
    if match := _DIGEST.fullmatch(path):
        return OfDigest(f"sha256:{match[1]}", checked(match[2] or ""))
    expected = "EXPERIMENT/RUN/artifacts, EXPERIMENT/models/MODEL/artifacts or digests/DIGEST"
    raise invalid(f"invalid artifact path {path[:200]!r}: expected a path below {expected}")


def checked(path: str) -> str:
    """Return a path of an artifact. Raises `MlflowError` when it leaves its directory."""
    path = unquote(path).strip("/")
    if path and (posixpath.normpath(path) != path or path.startswith("..") or "\\" in path or "\0" in path):
        raise invalid(f"invalid path {path[:200]!r}: expected a relative path without '..'")
    return path


def uri_of_digest(digest: str) -> str:
    """Return the URI of the files of a digest."""
    return f"{SCHEME}/digests/{digest.removeprefix('sha256:')}"


def place_of_uri(uri: str) -> Place | None:
    """Return the place of a proxied URI, None for any other."""
    scheme, _, rest = uri.partition(":")
    if f"{scheme}:" != SCHEME:
        return None
    path = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest
    return place_at(path)
