"""Requests about experiments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.mlflow_rest.steps.step import EXPERIMENTS, Step, get, pairs, post


def experiments() -> Iterator[Step]:
    """Yield all of them."""
    yield from _created()
    yield from _tagged_and_renamed()
    yield from _deleted()
    yield from _searched()


def _created() -> Iterator[Step]:
    """Requests that create."""
    yield get(f"{EXPERIMENTS}/get", experiment_id="0")
    yield get(f"{EXPERIMENTS}/get-by-name", experiment_name="Default")
    for number, name in enumerate(("first", "second", "with tags", "ünï/çødé", "x" * 500)):
        tags: dict[str, Any] = {"tags": pairs(team=f"t{number % 2}", number=str(number))} if number > 1 else {}
        keep = {f"e{number}": "experiment_id"}
        yield post(f"{EXPERIMENTS}/create", keep, name=name, **tags)
        yield get(f"{EXPERIMENTS}/get", experiment_id=f"$e{number}")
        yield get(f"{EXPERIMENTS}/get-by-name", experiment_name=name)
    yield post(f"{EXPERIMENTS}/create", name="first")
    yield post(f"{EXPERIMENTS}/create", name="")
    yield post(f"{EXPERIMENTS}/create", name="y" * 501)
    yield post(f"{EXPERIMENTS}/create", name=7)
    yield post(f"{EXPERIMENTS}/create", {"e9": "experiment_id"}, name="elsewhere", artifact_location="s3://bucket/dir")
    yield get(f"{EXPERIMENTS}/get", experiment_id="$e9")
    yield get(f"{EXPERIMENTS}/get", experiment_id="99999")
    yield get(f"{EXPERIMENTS}/get-by-name", experiment_name="nobody")


def _tagged_and_renamed() -> Iterator[Step]:
    """Requests that change tags and names."""
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="$e0", key="a", value="1")
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="$e0", key="a", value="2")
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="$e0", key="b.c/d e", value="")
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="99999", key="a", value="1")
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="$e0", key="k" * 251, value="1")
    yield get(f"{EXPERIMENTS}/get", experiment_id="$e0")
    yield post(f"{EXPERIMENTS}/delete-experiment-tag", experiment_id="$e0", key="a")
    yield post(f"{EXPERIMENTS}/delete-experiment-tag", experiment_id="$e0", key="a")
    yield get(f"{EXPERIMENTS}/get", experiment_id="$e0")
    yield post(f"{EXPERIMENTS}/update", experiment_id="$e0", new_name="renamed")
    yield post(f"{EXPERIMENTS}/update", experiment_id="$e0", new_name="second")
    yield post(f"{EXPERIMENTS}/update", experiment_id="99999", new_name="z")
    yield get(f"{EXPERIMENTS}/get-by-name", experiment_name="renamed")
    yield get(f"{EXPERIMENTS}/get-by-name", experiment_name="first")


def _deleted() -> Iterator[Step]:
    """Requests that delete and restore."""
    yield post(f"{EXPERIMENTS}/delete", experiment_id="$e1")
    yield post(f"{EXPERIMENTS}/delete", experiment_id="$e1")
    yield post(f"{EXPERIMENTS}/delete", experiment_id="99999")
    yield get(f"{EXPERIMENTS}/get", experiment_id="$e1")
    yield get(f"{EXPERIMENTS}/get-by-name", experiment_name="second")
    yield post(f"{EXPERIMENTS}/update", experiment_id="$e1", new_name="third")
    yield post(f"{EXPERIMENTS}/set-experiment-tag", experiment_id="$e1", key="a", value="1")
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL"):
        yield post(f"{EXPERIMENTS}/search", max_results=100, view_type=view, order_by=["name ASC"])
    yield post(f"{EXPERIMENTS}/restore", experiment_id="$e1")
    yield post(f"{EXPERIMENTS}/restore", experiment_id="$e1")
    yield post(f"{EXPERIMENTS}/restore", experiment_id="99999")


def _searched() -> Iterator[Step]:
    """Searches."""
    for wanted in (
        "name = 'second'",
        "name != 'second'",
        "name LIKE 'w%'",
        "name ILIKE 'W%'",
        "attribute.name = 'second'",
        "tags.team = 't0'",
        "tags.team = 't0' AND tags.number = '4'",
        "tags.team LIKE 't%'",
        "tags.nothing = 'x'",
    ):
        yield post(f"{EXPERIMENTS}/search", max_results=100, filter=wanted, order_by=["experiment_id ASC"])
        yield get(f"{EXPERIMENTS}/search", max_results=100, filter=wanted, order_by=["experiment_id ASC"])
    for bad in (
        "name ~ 'x'",
        "name = second",
        "metrics.x > 1",
        "name =",
        "AND",
        "name = 'a' OR name = 'b'",
        "tags.a > 'x'",
    ):
        yield post(f"{EXPERIMENTS}/search", max_results=100, filter=bad)
    for order in (
        ["name DESC"],
        ["experiment_id"],
        ["name ASC", "experiment_id DESC"],
        ["nothing ASC"],
        ["name SIDEWAYS"],
    ):
        yield post(f"{EXPERIMENTS}/search", max_results=100, order_by=order)
    yield post(
        f"{EXPERIMENTS}/search",
        {"page": "next_page_token"},
        ["next_page_token"],
        max_results=2,
        order_by=["experiment_id ASC"],
    )
    yield post(
        f"{EXPERIMENTS}/search",
        loose=["next_page_token"],
        max_results=2,
        order_by=["experiment_id ASC"],
        page_token="$page",
    )
    for number in (0, -1, 50001, "many"):
        yield post(f"{EXPERIMENTS}/search", max_results=number)
