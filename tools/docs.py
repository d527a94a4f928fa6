"""Build the documentation site: completes the pages of docs/ in build/docs, then runs the generator strictly.

A page of docs/ gets on its way what it leaves to generators: the reference of the command line, and the modules of the
SDK. Links that lead out of docs/ lead to a page that shows the file, so the pages read well in the repository too.
"""

from __future__ import annotations

import inspect
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rollforward as rf
from tools.cli_reference import options_of_every_command, reference

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
CLIENT = ROOT / "client" / "src"
# `](../x)` of an inline link, `]: ../x` of a link definition.
LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)#\s]+|(?<=\]: )(?:\.\./)+[^#\s]+")


def functions() -> str:
    """Return a table of the SDK's functions, with the first sentence of each docstring."""
    rows = ["| function | effect |", "|---|---|"]
    for name in sorted(dir(rf)):
        value = getattr(rf, name)
        if inspect.isroutine(value):
            summary = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")
            rows.append(f"| `rf.{name}` | {summary} |")
    return "\n".join(rows)


GENERATED = {
    "<!-- functions -->": functions,
    "<!-- commands -->": reference,
    "<!-- options of every command -->": options_of_every_command,
}
MODULES = re.compile(r"^<!-- modules (.+) -->$", re.MULTILINE)
PACKAGE = re.compile(r"^<!-- package (\S+) -->$", re.MULTILINE)
LANGUAGES = {".py": "python", ".yml": "yaml", ".conf": "text", ".toml": "toml", ".proto": "protobuf", ".sh": "sh"}
# What a browser loads by itself: a page must not ask another host for anything.
LOADED = re.compile(
    r"""<(?:(?:script|img|iframe|source)[^>]* src|link[^>]* rel="?stylesheet[^>]* href)="?(?:https?:)?//[^">]*"""
)


def stage() -> Path:
    """Write the completed pages to build/docs, and return that folder.

    Raises:
        SystemExit: A link leads to a file that does not exist.
    """
    target = BUILD / "docs"
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted(DOCS.rglob("*")):
        copy = target / source.relative_to(DOCS)
        if source.suffix == ".md" and source.name != "package.md":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_completed(source, target))
    return target


def _completed(page: Path, target: Path) -> str:
    text = page.read_text()
    for mark, generated in GENERATED.items():
        if mark in text:
            text = text.replace(mark, generated())
    text = MODULES.sub(lambda found: "\n\n".join(f"::: {name}" for name in found[1].split()), text)
    text = PACKAGE.sub(lambda found: "\n\n".join(f"::: {name}" for name in modules(found[1])), text)
    folder = page.parent.relative_to(ROOT).as_posix()
    return LINK.sub(lambda found: _linked(found[0], folder, target), text)


def modules(package: str) -> list[str]:
    """Return the public modules of a package of the SDK, such as `rollforward.registry`, by name."""
    folder = CLIENT / package.replace(".", "/")
    found = (path.relative_to(CLIENT) for path in sorted(folder.rglob("*.py")) if not path.name.startswith("_"))
    return [".".join(path.with_suffix("").parts) for path in found]


def _linked(link: str, folder: str, target: Path) -> str:
    """Return a link, as of a page in `folder`, that stays within the site; a file from outside gets a page."""
    name = posixpath.normpath(posixpath.join(folder, link))
    file = ROOT / name
    if name.startswith("docs/"):
        return link
    if not file.exists():
        raise SystemExit(f"{folder}: a link leads to {name}, which does not exist")
    if file.is_dir():
        body = "\n".join(f"- `{path.name}`" for path in sorted(file.iterdir()))
    elif file.suffix == ".md":
        body = LINK.sub(lambda found: found[0], file.read_text())
        body = re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", body)
    else:
        body = f"# {name}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}\n````"
    page = target / "source" / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"---\nsearch:\n  exclude: true\n---\n\n{body}\n")
    inside = folder.removeprefix("docs").lstrip("/") or "."
    return posixpath.relpath(f"source/{name}.md", inside)


def check_navigation() -> None:
    """Stop unless mkdocs.yml lists each page, the decisions and shown sources apart, and only pages."""
    listed = set(re.findall(r"- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    decisions = {page for page in pages if re.match(r"adr/\d", page)}
    if different := listed ^ (pages - decisions - {"package.md"}):
        raise SystemExit(f"mkdocs.yml and docs/ list different pages: {', '.join(sorted(different))}")


def _shortened(output: str) -> str:
    """Return a line for each warning, where the generator draws the place with boxes and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    warnings = re.findall(r"^Warning: (.+)\n\W*(\S+\.md:\d+)", plain, re.MULTILINE)
    return "\n".join(f"docs/{place}: {warning}" for warning, place in warnings) or plain


def build() -> None:
    """Build the site from the staged pages; stop when the generator warns, or a page loads something from elsewhere."""
    generator = ROOT / ".venv-docs" / "bin" / "zensical"
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    env = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [generator, "build", "--clean", "--strict"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(_shortened(done.stdout + done.stderr))
    for page in sorted((BUILD / "site").rglob("*.html")):
        if found := LOADED.search(page.read_text()):
            raise SystemExit(f"{page.relative_to(ROOT)} loads from another host: {found[0]}")


if __name__ == "__main__":
    check_navigation()
    stage()
    build()
    print(f"the site is in {BUILD / 'site'}: python3 -m http.server --directory {BUILD / 'site'}")
