"""Find the project's former house words in names, docstrings, comments, messages and pages: plain words say the same.

`ALLOWED` lists where a word is right after all, with the reason.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent

NAMES: Final = {
    "anew": "again",
    "attendance": "liveness, heartbeat",
    "because": "metadata, context",
    "beside": "build",
    "complaints": "warnings",
    "heard": "received",
    "held": "cached, current",
    "judge": "gate evaluator",
    "judgement": "gate result",
    "least": "min",
    "longest": "max",
    "most": "max",
    "news": "events",
    "patience": "timeout, grace period",
    "strand": "segment log",
    "standing": "current",
    "tally": "histogram, buckets",
    "told": "sent, reported",
    "trouble": "last error",
    "twice": "duplicate",
    "upto": "until",
    "words": "message, text",
}
"""House words as a part of a name, between underscores or capitals, and what to say instead."""

PHRASES: Final = {
    r"anew": "again",
    r"asked? (?:for )?again and again": "repeatedly",
    r"behind (?:a|the|that|this|its|whose) (?:position|revision|event|cursor)": "after",
    r"for ever": "forever, permanently",
    r"go(?:es)? on (?:with|from|where|as|at|by|until|behind|logging)": "continues",
    r"held by (?:a )?tests?": "tested by",
    r"lets? us in": "accepts the login",
    r"me[et]ts? a defect": "fails",
    r"once more": "again, retry",
    r"otherwise than": "differently from",
    r"parked": "disabled",
    r"those that there are": "existing",
    r"what stands for": "which represents",
    r"whatever there is": "everything",
}
"""Phrases in prose that a native engineer would not write, as patterns, and what to say instead."""

ALLOWED: Final = {
    ("least", ""): "at_least is plain English for a lower bound",
    ("attendance", "services/settings.py"): "ROLLFORWARD_ATTENDANCE_PATIENCE is a setting that users have",
    ("patience", "services/settings.py"): "ROLLFORWARD_*_PATIENCE are settings that users have",
    ("twice", "tests/e2e/journeys/test_demo.py"): "the demo does run two times",
    ("told", "tests/histories"): "a field of recorded histories, which are kept and checked again",
    ("parked", "docs/webhooks.md"): "the label of a metric",
    ("parked", "services/webhooks"): "stored event names and the label of a metric",
    ("parked", "client/src/rollforward/cli/operations/webhook_tables.py"): "a name in the contract",
    ("parked", "tests/integration/webhooks"): "stored event names and the state that the command line shows",
}
"""By word and the beginning of a path: why it stays."""

SKIPPED: Final = re.compile(r"_pb2|CHANGELOG\.md$|^tools/words\.py$|^LICENSE$|requirements\.lock$")
# "At least" and "at most" are plain English.
PARTS: Final = re.compile(r"at_(?:least|most)|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
PHRASE: Final = {re.compile(rf"\b{phrase}\b", re.IGNORECASE): plain for phrase, plain in PHRASES.items()}


class Finding(NamedTuple):
    """A house word, where it is, and what to say instead."""

    path: str
    line: int
    word: str
    plain: str

    def __str__(self) -> str:
        """Return the line that is printed."""
        return f"{self.path}:{self.line}: {self.word!r}: say {self.plain}"


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that a module gives to things, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case _:
                pass


def prose_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and the texts of a module, docstrings and messages among them, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for number, line in enumerate(token.string.splitlines()):
                yield token.start[0] + number, line


def findings(path: str) -> Iterator[Finding]:
    """Yield the house words of a file, in no order."""
    text = (ROOT / path).read_text()
    if path.endswith(".py"):
        for line, name in names_in(ast.parse(text)):
            for part in PARTS.findall(name):
                if plain := NAMES.get(part.lower()):
                    yield Finding(path, line, part.lower(), plain)
        prose: Iterable[tuple[int, str]] = prose_in(text)
    else:
        prose = enumerate(re.sub(r"`[^`\n]+`", "", text).splitlines(), 1)
    for line, words in prose:
        for phrase, plain in PHRASE.items():
            for found in phrase.finditer(words):
                yield Finding(path, line, found[0].lower(), plain)


def is_allowed(finding: Finding) -> bool:
    """Return whether the list of exceptions has this word for this file."""
    return any(finding.word == word and finding.path.startswith(path) for word, path in ALLOWED)


def files() -> list[str]:
    """Return the files that people read and wrote, by their path in the repository."""
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if not SKIPPED.search(path) and (ROOT / path).exists()]


def main(arguments: list[str]) -> None:
    """Print the house words of the folders given, else of all; exit 1 if there are any."""
    found = [
        finding
        for path in files()
        if not arguments or path.startswith(tuple(arguments))
        for finding in findings(path)
        if not is_allowed(finding)
    ]
    for finding in sorted(found):
        print(finding)
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
