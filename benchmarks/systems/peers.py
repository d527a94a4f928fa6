"""The peers' own virtual environment, made from `peers.txt` when it is not there or was made from another one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / ".venv-peers"
_PINS = _ROOT / "benchmarks" / "peers.txt"
_STAMP = _HOME / ".made-from"


def peers_program(name: str) -> Path:
    """A program of the environment."""
    return _HOME / "bin" / name


def version_of(package: str) -> str:
    """What the pins say of a package."""
    pins = dict(line.split(" ")[0].split("==") for line in _PINS.read_text().splitlines() if "==" in line)
    return pins[package]


def make_environment() -> None:
    """Makes the environment unless it is as the pins say; the first time it takes a minute and a gigabyte."""
    if _STAMP.exists() and _STAMP.read_text() == _identity():
        return
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    shutil.rmtree(_HOME, ignore_errors=True)
    if uv:
        _run(uv, "venv", "--quiet", "--python", sys.executable, _HOME)
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", peers_program("python"), "-r", _PINS)
    else:
        _run(sys.executable, "-m", "venv", _HOME)
        _run(peers_program("python"), "-m", "pip", "install", "--quiet", "-r", _PINS)
    _STAMP.write_text(_identity())


def _identity() -> str:
    return f"{_HOME}\n{sys.version}\n{_PINS.read_text()}"


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)
