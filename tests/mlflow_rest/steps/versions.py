"""Requests about versions and aliases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.mlflow_rest.steps.step import MODELS, VERSIONS, Step, delete, get, pairs, patch, post


def versions() -> Iterator[Step]:
    """Yield all of them."""
    yield from _created()
    yield from _changed()
    yield from _latest()
    yield from _aliases()
    yield from _searched()
    yield from _deleted()


def _created() -> Iterator[Step]:
    """Requests that create."""
    yield post(f"{VERSIONS}/create", name="plain", source="s3://bucket/model")
    yield post(
        f"{VERSIONS}/create",
        name="plain",
        source="models:/$m0",
        model_id="$m0",
        run_id="$r1",
        description="second",
        tags=pairs(stage="new"),
    )
    yield post(f"{VERSIONS}/create", name="plain", source="runs:/$r1/model", run_id="$r1", run_link="http://run")
    yield post(f"{VERSIONS}/create", name="renamed", source="mlflow-artifacts:/x/y", loose=[])
    yield post(f"{VERSIONS}/create", name="nobody", source="s3://bucket/model")
    yield post(f"{VERSIONS}/create", name="plain")
    yield post(f"{VERSIONS}/create", source="s3://bucket/model")
    yield post(f"{VERSIONS}/create", name="plain", source="/etc/passwd")
    yield post(f"{VERSIONS}/create", name="plain", source="file:///etc/passwd")
    for version in ("1", "2", "3", "4", "0", "x", "-1"):
        yield get(f"{VERSIONS}/get", name="plain", version=version)
    yield get(f"{VERSIONS}/get", name="nobody", version="1")
    yield get(f"{VERSIONS}/get", name="plain")
    yield get(f"{VERSIONS}/get-download-uri", loose=["artifact_uri"], name="plain", version="1")
    yield get(f"{VERSIONS}/get-download-uri", name="plain", version="9")


def _changed() -> Iterator[Step]:
    """Requests that change descriptions and tags."""
    yield patch(f"{VERSIONS}/update", name="plain", version="1", description="changed")
    yield patch(f"{VERSIONS}/update", name="plain", version="9", description="changed")
    yield get(f"{VERSIONS}/get", name="plain", version="1")
    yield post(f"{VERSIONS}/set-tag", name="plain", version="1", key="k", value="v")
    yield post(f"{VERSIONS}/set-tag", name="plain", version="9", key="k", value="v")
    yield post(f"{VERSIONS}/set-tag", name="plain", version="1", value="v")
    yield get(f"{VERSIONS}/get", name="plain", version="1")
    yield delete(f"{VERSIONS}/delete-tag", name="plain", version="1", key="k")
    yield delete(f"{VERSIONS}/delete-tag", name="plain", version="1", key="k")
    yield delete(f"{VERSIONS}/delete-tag", name="plain", version="9", key="k")


def _latest() -> Iterator[Step]:
    """The latest versions."""
    yield get(f"{MODELS}/get", name="plain")
    for stages in ([], ["None"], ["Production"], ["Nowhere"]):
        of: dict[str, Any] = {"stages": stages} if stages else {}
        yield post(f"{MODELS}/get-latest-versions", name="plain", **of)
    yield get(f"{MODELS}/get-latest-versions", name="plain")
    yield post(f"{MODELS}/get-latest-versions", name="nobody")


def _aliases() -> Iterator[Step]:
    """Aliases."""
    for alias, version in (("champion", "1"), ("champion", "2"), ("challenger", "2"), ("old-one_2", "1")):
        yield post(f"{MODELS}/alias", name="plain", alias=alias, version=version)
        yield get(f"{MODELS}/alias", name="plain", alias=alias)
    yield post(f"{MODELS}/alias", name="plain", alias="champion", version="9")
    yield post(f"{MODELS}/alias", name="nobody", alias="champion", version="1")
    for bad in ("latest", "v1", "a b", "", "x" * 256, "a/b"):
        yield post(f"{MODELS}/alias", name="plain", alias=bad, version="1")
    yield post(f"{MODELS}/alias", name="plain", alias="a", version="one")
    yield post(f"{MODELS}/alias", name="plain", alias="a")
    yield get(f"{MODELS}/alias", name="plain", alias="nothing")
    yield get(f"{MODELS}/alias", name="nobody", alias="champion")
    yield get(f"{MODELS}/alias", name="plain")
    yield get(f"{MODELS}/get", name="plain")
    yield get(f"{VERSIONS}/get", name="plain", version="2")
    yield delete(f"{MODELS}/alias", name="plain", alias="challenger")
    yield delete(f"{MODELS}/alias", name="plain", alias="challenger")
    yield delete(f"{MODELS}/alias", name="nobody", alias="challenger")
    yield get(f"{MODELS}/alias", name="plain", alias="challenger")


def _searched() -> Iterator[Step]:
    """Searches."""
    for wanted in (
        "name = 'plain'",
        "name LIKE 'pl%'",
        "run_id = '$r1'",
        "name = 'plain' AND version_number = 2",
        "version_number > 1",
        "tags.stage = 'new'",
        "source_path = 's3://bucket/model'",
        "name = 'nobody'",
    ):
        yield get(f"{VERSIONS}/search", filter=wanted, order_by=["name ASC", "version_number ASC"])
    for bad in ("name > 'a'", "nothing = 'a'", "version_number = 'x'"):
        yield get(f"{VERSIONS}/search", filter=bad)
    yield get(f"{VERSIONS}/search", order_by=["nothing"])
    yield get(
        f"{VERSIONS}/search",
        {"versions": "next_page_token"},
        ["next_page_token"],
        max_results=2,
        order_by=["name ASC", "version_number ASC"],
    )
    yield get(
        f"{VERSIONS}/search",
        loose=["next_page_token"],
        max_results=2,
        order_by=["name ASC", "version_number ASC"],
        page_token="$versions",
    )
    for number in (0, -1, 200001):
        yield get(f"{VERSIONS}/search", max_results=number)


def _deleted() -> Iterator[Step]:
    """Requests that delete and restore."""
    yield delete(f"{VERSIONS}/delete", name="plain", version="3")
    yield delete(f"{VERSIONS}/delete", name="plain", version="3")
    yield delete(f"{VERSIONS}/delete", name="plain", version="9")
    yield get(f"{VERSIONS}/get", name="plain", version="3")
    yield get(f"{MODELS}/get", name="plain")
    yield delete(f"{VERSIONS}/delete", name="plain", version="1")
    yield get(f"{MODELS}/alias", name="plain", alias="old-one_2")
    yield post(f"{VERSIONS}/create", name="plain", source="s3://bucket/again")
