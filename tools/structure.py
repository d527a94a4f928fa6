"""Check the shape of the code: no import circles, and folders, modules and functions that one can take in.

Prints what breaks a limit. What is better left over one is listed in docs/architecture.md, with its reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = {"eventstore": ROOT, "services": ROOT, "rollforward": ROOT / "client/src"}
GENERATED: Final = {"rollforward/v1", "rollforward/inference"}
MAX_MODULES: Final = 15
"""Of a folder, `__init__` not counted."""
MAX_MODULE_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 50

Graph = Mapping[str, set[str]]


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module that was written by hand: its path from its import root, and its file."""
    for package, root in SOURCES.items():
        for file in sorted((root / package).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            if not name.startswith(tuple(GENERATED)):
                yield name, file


def imports() -> Graph:
    """Return which modules each module imports when it is run; imports for type checkers alone do not count."""
    graph = grimp.build_graph(*SOURCES, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(graph: Graph) -> list[str]:
    """Return modules that import each other in a circle, or an empty list when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of lines of each function over the limit, its docstring not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                docstring = node.body[0]
                lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.name, lines


def over_limits() -> Iterator[tuple[str, str]]:
    """Yield the place and the excess of all that is over a limit."""
    folders: dict[str, int] = {}
    for name, file in modules():
        folder = name.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) + (file.name != "__init__.py")
        text = file.read_text()
        if (lines := text.count("\n")) > MAX_MODULE_LINES:
            yield name, f"{lines} lines, more than {MAX_MODULE_LINES}"
        for function, length in long_functions(text):
            yield f"{name}:{function}", f"{length} lines, more than {MAX_FUNCTION_LINES}"
    for folder, count in folders.items():
        if count > MAX_MODULES:
            yield folder, f"{count} modules, more than {MAX_MODULES}"


def accepted() -> set[str]:
    """Return the places over a limit that docs/architecture.md lists: the first column of its table of exceptions."""
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("## Over a limit")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE))


def problems() -> Iterable[str]:
    """Yield a line for each circle, each place over a limit that is not listed, and each that is listed in vain."""
    if modules_in_circle := circle(imports()):
        yield f"import circle: {' -> '.join(modules_in_circle)}"
    listed = accepted()
    over = dict(over_limits())
    for place, excess in over.items():
        if place not in listed:
            yield f"{place}: {excess}"
    for place in sorted(listed - over.keys()):
        yield f"docs/architecture.md lists {place}, which is not over a limit"


def main() -> None:
    """Print all problems; exit 1 if there are any."""
    found = list(problems())
    for line in found:
        print(line)
    if not found:
        print(f"no import circles; {sum(1 for _ in modules())} modules within their limits")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
