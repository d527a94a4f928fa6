"""docs/errors.md names every reason that the code can give, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REASON = re.compile(r"[A-Z][A-Z_]{3,}[A-Z]")
# Strings of this form that are something else.
NO_REASON = re.compile(
    r"ROLLFORWARD_.*|AWS_.*|XDG_.*|BEGIN|BYTES|FINISHED|FAILED|KILLED|ILIKE|CANCELLED|ABORTED|UNKNOWN|NO_COLOR|AUTOCOMMIT"
    r"|MATERIALIZED|UNSPECIFIED|HEALTHZ|GOMEMLIMIT|SERVICES"
)


def in_code() -> set[str]:
    folders = [ROOT / "eventstore", ROOT / "services", ROOT / "client/src/rollforward"]
    # The command line and the demo pass on what the others refuse; what they shout are headings. MLflow's API has error
    # codes of its own.
    files = [
        file
        for folder in folders
        for file in folder.rglob("*.py")
        if not {"cli", "demo", "mlflow_rest", "v1"} & {*file.relative_to(ROOT).parts}
    ]
    found = {
        text for file in files for text in _strings(file) if REASON.fullmatch(text) and not NO_REASON.fullmatch(text)
    }
    return found - set(_environment_names(files))


def _strings(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    # The names of arguments on the command line are capitals too.
    names = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in _NAMES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in names:
            yield node.value


_NAMES = {"metavar", "name"}


def _environment_names(files: list[Path]) -> Iterator[str]:
    for file in files:
        yield from re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", file.read_text())


def in_docs() -> set[str]:
    text = (ROOT / "docs/errors.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {reason for row in rows for reason in re.findall(r"`([A-Z_]+)`", row)}


def test_every_reason_is_documented() -> None:
    assert in_code() - in_docs() == set()


def test_every_documented_reason_exists() -> None:
    assert in_docs() - in_code() == set()
