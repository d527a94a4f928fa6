"""The README's commands do what it says, word for word, in a shell of their own."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.ports import free_port
from tests.timeouts import scaled

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
# The other tests and the demo's own test are these two; a test cannot run the tests that it is a part of.
TWO_COMMANDS = ["make demo", "make test"]


def commands() -> list[str]:
    lines = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
    return [line.split("   #")[0].strip() for line in lines]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_verb_of_make_exists() -> None:
    verbs = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in commands() if line.startswith("make ")} <= set(verbs)


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_python_is_the_examples() -> None:
    shown = ast.parse(next(block for language, block in BLOCKS if language == "python"))
    calls = [
        node.func.attr
        for node in ast.walk(shown)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    example = (ROOT / "examples/quickstart.py").read_text()
    assert calls
    assert [call for call in calls if f".{call}(" not in example] == []


@pytest.mark.timeout(180)
def test_the_commands_lead_to_a_rolled_back_alias(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    address = f"127.0.0.1:{free_port()}"
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # as a pipe that has no width
    environment = plain | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ROLLFORWARD_GRPC": address,
        "ROLLFORWARD_URI": address,
        "ROLLFORWARD_POD_GRPC": f"127.0.0.1:{free_port()}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    lines = [
        line for line in commands() if line not in TWO_COMMANDS and not line.startswith(("make setup", "export PATH="))
    ]
    # -m: jobs have numbers, as in a shell that is typed into; and the script waits for what the text says to wait for.
    script = "\n".join(["set -em", *lines, "wait"])
    log = tmp_path / "cache/up.log"
    log.parent.mkdir()
    start = "rollforward up --data quickstart-data"
    assert f"{start} &\n" in script
    script = script.replace(f"{start} &", f"{start} > {log} &\nuntil grep 'listens on' {log}; do :; done")
    script = script.replace(
        "rollforward deployments list", "until rollforward deployments list | grep current; do :; done"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(170),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^tumour-detector@champion +v2 +v1 +sha256:", done.stdout, re.MULTILINE), done.stdout
    version_of = re.findall(r"^version +(v\d)$", done.stdout, re.MULTILINE)
    assert version_of == ["v1", "v2", "v1"], done.stdout  # now, as of revision 5, and the one to blame
    assert "candidate.metrics.accuracy > 0.9 skipped" in done.stdout, done.stdout
    assert len((tmp_path / "quickstart-data/history.jsonl").read_text().splitlines()) == 7
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert {path.name for path in tmp_path.iterdir()} - ignored == {"examples", "cache"}
    assert re.search(r"tumour-detector@champion +v1 +v1 .*current", done.stdout)
    assert "equal       yes" in done.stdout
