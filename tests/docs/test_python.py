"""The Python of every page is Python, and calls what the SDK has."""

from __future__ import annotations

import ast

import pytest

import rollforward as rf
from tests.docs.shell import ROOT, blocks

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "client/README.md"]
SHOWN = [(page, block) for page in PAGES for language, block in blocks(page) if language == "python"]


@pytest.mark.parametrize(
    "block", [block for _, block in SHOWN], ids=[f"{page.stem}-{n}" for n, (page, _) in enumerate(SHOWN)]
)
def test_it_uses_names_that_the_sdk_has(block: str) -> None:
    used = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    names = {node.attr for node in used if isinstance(node.value, ast.Name) and node.value.id == "rf"}
    assert [name for name in sorted(names) if not hasattr(rf, name)] == []
