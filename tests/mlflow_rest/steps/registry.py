"""Requests about registered models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.mlflow_rest.steps.step import MODELS, Step, delete, get, pairs, patch, post


def registry() -> Iterator[Step]:
    """Yield all of them."""
    yield from _created()
    yield from _changed()
    yield from _renamed_and_deleted()
    yield from _searched()


def _created() -> Iterator[Step]:
    """Requests that create."""
    for number, name in enumerate(("plain", "tagged", "ünï çødé", "soon gone", "n" * 255)):
        fields: dict[str, Any] = {"tags": pairs(team=f"t{number}"), "description": f"about {number}"} if number else {}
        yield post(f"{MODELS}/create", name=name, **fields)
        yield get(f"{MODELS}/get", name=name)
    yield post(f"{MODELS}/create", name="plain")
    yield post(f"{MODELS}/create", name="")
    yield post(f"{MODELS}/create")
    yield post(f"{MODELS}/create", name="a/b")
    yield post(f"{MODELS}/create", name="a:b")
    yield get(f"{MODELS}/get", name="nobody")
    yield get(f"{MODELS}/get")


def _changed() -> Iterator[Step]:
    """Requests that change descriptions and tags."""
    yield patch(f"{MODELS}/update", name="plain", description="described")
    yield patch(f"{MODELS}/update", name="nobody", description="described")
    yield get(f"{MODELS}/get", name="plain")
    yield post(f"{MODELS}/set-tag", name="plain", key="a", value="1")
    yield post(f"{MODELS}/set-tag", name="plain", key="a", value="2")
    yield post(f"{MODELS}/set-tag", name="nobody", key="a", value="2")
    yield post(f"{MODELS}/set-tag", name="plain", key="", value="2")
    yield post(f"{MODELS}/set-tag", name="plain", value="2")
    yield get(f"{MODELS}/get", name="plain")
    yield delete(f"{MODELS}/delete-tag", name="plain", key="a")
    yield delete(f"{MODELS}/delete-tag", name="plain", key="a")
    yield delete(f"{MODELS}/delete-tag", name="nobody", key="a")
    yield get(f"{MODELS}/get", name="plain")


def _renamed_and_deleted() -> Iterator[Step]:
    """Requests that rename and delete."""
    yield post(f"{MODELS}/rename", name="tagged", new_name="renamed")
    yield post(f"{MODELS}/rename", name="renamed", new_name="plain")
    yield post(f"{MODELS}/rename", name="nobody", new_name="somebody")
    yield post(f"{MODELS}/rename", name="renamed")
    yield get(f"{MODELS}/get", name="renamed")
    yield delete(f"{MODELS}/delete", name="soon gone")
    yield delete(f"{MODELS}/delete", name="soon gone")
    yield delete(f"{MODELS}/delete", name="nobody")
    yield get(f"{MODELS}/get", name="soon gone")


def _searched() -> Iterator[Step]:
    """Searches."""
    for wanted in (
        "",
        "name = 'plain'",
        "name LIKE '%n%'",
        "name ILIKE 'PLAIN'",
        "tags.team = 't1'",
        "tags.team != 't1'",
        "name = 'nobody'",
    ):
        yield get(f"{MODELS}/search", filter=wanted)
    for bad in ("name > 'a'", "nothing = 'a'", "name", "version = '1'"):
        yield get(f"{MODELS}/search", filter=bad)
    for order in (["name DESC"], ["name"], ["nothing"]):
        yield get(f"{MODELS}/search", order_by=order)
    yield get(f"{MODELS}/search", {"models": "next_page_token"}, ["next_page_token"], max_results=2)
    yield get(f"{MODELS}/search", loose=["next_page_token"], max_results=2, page_token="$models")
    for number in (0, -1, 1001, "x"):
        yield get(f"{MODELS}/search", max_results=number)
