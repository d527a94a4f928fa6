"""docs/watch.md names for each guarantee a test that is there, and no test of a guarantee goes without one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/contract/watch/test_watch_guarantees.py",
    "tests/contract/watch/test_watch_outages.py",
    "tests/integration/watch/test_watch_runs.py",
    "tests/integration/watch/test_watch_runs_outages.py",
]


def guarantees() -> dict[str, str]:
    """The tests of guarantees, each with its file's path as the page writes it."""
    return {
        node.name: f"../{path}"
        for path in TESTS
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_guarantees_and_tests_are_the_same() -> None:
    text = (ROOT / "docs/watch.md").read_text()
    links = dict(re.findall(r"^\[(test_\w+)\]: (\S+)$", text, re.MULTILINE))
    assert links == guarantees()
    assert set(re.findall(r"\[(test_\w+)\](?!:)", text)) == set(links)
