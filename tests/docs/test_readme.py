"""The commands of README and quickstart do what the pages say, word for word, in a shell of their own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.shell import ROOT, blocks, commands, run_page

README = ROOT / "README.md"
QUICKSTART = ROOT / "docs/quickstart.md"


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", [README, QUICKSTART, ROOT / "docs/install.md"], ids=lambda page: page.name)
def test_every_verb_of_make_exists(page: Path) -> None:
    verbs = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in commands(page) if line.startswith("make ")} <= {*verbs}


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md", "client/README.md"]
)
def test_every_link_leads_somewhere(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_python_is_the_examples() -> None:
    shown = ast.parse(next(block for language, block in blocks(README) if language == "python"))
    calls = [
        node.func.attr
        for node in ast.walk(shown)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    example = (ROOT / "examples/quickstart.py").read_text()
    assert calls
    assert [call for call in calls if f".{call}(" not in example] == []


@pytest.mark.timeout(180)
def test_the_commands_of_the_readme_lead_to_a_prediction_and_a_rolled_back_alias(tmp_path: Path) -> None:
    printed = run_page(README, tmp_path)
    assert re.search(r"^tumour-detector@champion +v2 +v1 +sha256:", printed, re.MULTILINE), printed
    assert re.findall(r"^version +(v\d)$", printed, re.MULTILINE) == ["v1", "v2"], printed  # now, as of revision 5
    [answer] = re.findall(r"^v2 predicts \[.*\]$", printed, re.MULTILINE)
    assert f"prints `{answer}`" in README.read_text()


@pytest.mark.timeout(180)
def test_the_commands_of_the_quickstart_lead_to_rows_that_equal_the_log(tmp_path: Path) -> None:
    printed = run_page(QUICKSTART, tmp_path)
    assert re.search(r"^tumour-detector@champion +v2 +v1 +sha256:", printed, re.MULTILINE), printed
    versions = re.findall(r"^version +(v\d)$", printed, re.MULTILINE)
    assert versions == ["v1", "v2", "v1"], printed  # now, as of revision 5, and the one to blame
    assert "v2 predicts [" in printed
    assert "candidate.metrics.accuracy > 0.9 skipped" in printed, printed
    assert len((tmp_path / "quickstart-data/history.jsonl").read_text().splitlines()) == 7
    assert "equal       yes" in printed
