"""The peers' virtual environments, each created from its pins when missing or outdated.

One for each peer: what one of them brings along would change how another one runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / ".venv-peers"
_PINS = _ROOT / "benchmarks" / "peers"


def peers_program(peer: str, name: str) -> Path:
    """Return the path of a program in a peer's environment."""
    return _HOME / peer / "bin" / name


def version_of(peer: str) -> str:
    """Return the version that a peer is pinned to."""
    pins = dict(line.split(" ")[0].split("==") for line in _pins(peer).read_text().splitlines() if "==" in line)
    return pins[peer]


def make_environment(peer: str) -> None:
    """Create a peer's environment unless it is as pinned; the first time takes up to a minute and a gigabyte."""
    home = _HOME / peer
    stamp = home / ".made-from"
    if stamp.exists() and stamp.read_text() == _identity(peer):
        return
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    shutil.rmtree(home, ignore_errors=True)
    python = peers_program(peer, "python")
    if uv:
        _run(uv, "venv", "--quiet", "--python", sys.executable, home)
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", _pins(peer))
    else:
        _run(sys.executable, "-m", "venv", home)
        _run(python, "-m", "pip", "install", "--quiet", "-r", _pins(peer))
    stamp.write_text(_identity(peer))


def _pins(peer: str) -> Path:
    return _PINS / f"{peer}.txt"


def _identity(peer: str) -> str:
    return f"{_HOME}\n{sys.version}\n{_pins(peer).read_text()}"


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)
