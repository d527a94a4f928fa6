"""Runs the commands of a page, word for word, in a shell and a system of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers.ports import free_port
from tests.timeouts import scaled

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 170
# The tests and the demo are tested elsewhere, and nothing is installed.
NOT_RUN = ("make demo", "make test", "make setup", "export PATH=", "pip install")
START = "rollforward up --data quickstart-data"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code in a page."""
    return re.findall(r"^ *```(\w+)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, without comments."""
    lines = [line for language, block in blocks(page) if language == "sh" for line in block.splitlines()]
    return [line.split("   #")[0].strip() for line in lines]


def run_page(page: Path, folder: Path) -> str:
    """Run a page's commands in an empty folder, from starting a system to ending it, and return what they print.

    Raises:
        AssertionError: A command failed.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    address = f"127.0.0.1:{free_port()}"
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # as a pipe that has no width
    environment = plain | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ROLLFORWARD_GRPC": address,
        "ROLLFORWARD_URI": address,
        "ROLLFORWARD_POD_GRPC": f"127.0.0.1:{free_port()}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    log = folder / "cache/up.log"
    log.parent.mkdir()
    # -m: jobs have numbers, as in a shell that is typed into; and the script waits for what the text says to wait for.
    # A command that fails ends what it left running.
    end = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    script = "\n".join(["set -em", end, *(line for line in commands(page) if not line.startswith(NOT_RUN)), "wait"])
    assert f"{START} &\n" in script
    script = script.replace(f"{START} &", f"{START} > {log} &\nuntil grep 'listens on' {log}; do :; done")
    script = script.replace(
        "rollforward deployments list", "until rollforward deployments list | grep current; do :; done"
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(SECONDS),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert {path.name for path in folder.iterdir()} - ignored == {"examples", "cache"}
    return done.stdout
