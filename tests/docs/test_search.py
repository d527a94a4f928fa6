"""docs/search.md shows filters and orders that are understood, and the differences from MLflow that tests hold."""

import re
from pathlib import Path

import pytest

from services.listings.filter_grammar import parse_filter, parse_order
from services.tracking.queries.run_filters import RUN_FIELDS, RUN_ORDERS
from tests.model.test_search_like_mlflow import DIFFERENCES

PAGE = (Path(__file__).resolve().parents[2] / "docs/search.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILTERS, ORDERS = (block.strip().splitlines() for language, block in BLOCKS if not language)


@pytest.mark.parametrize("line", FILTERS)
def test_filters(line: str) -> None:
    assert parse_filter(line, RUN_FIELDS)


@pytest.mark.parametrize("line", ORDERS)
def test_orders(line: str) -> None:
    assert parse_order(line, RUN_ORDERS)


def test_every_field_is_named() -> None:
    for name in {field.name for field in RUN_FIELDS.values()}:
        assert f"`{name}" in PAGE


def test_differences_are_the_ones_that_tests_hold() -> None:
    table = PAGE.partition("| what | in MLflow |")[2]
    assert re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) == list(DIFFERENCES)
