"""Keeps requirements.lock: every package of every extra with its hashes, and no address of where it came from."""

import argparse
import os
import re
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
MEMBERS = ("pyproject.toml", "client/pyproject.toml")
OURS = ("rollforward", "rollforward-server")
OLDEST_PYTHON = "3.11"
PINNED = re.compile(r"[a-z0-9-]+==\S+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


def write(options: list[str]) -> None:
    """Resolve for every platform and Python at once; pins stay as they are unless `options` asks for an upgrade."""
    ours = [part for name in OURS for part in ("--no-emit-package", name)]
    uv = Path(sysconfig.get_path("scripts"), "uv")
    command = [uv, "--quiet", "pip", "compile", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += ["--all-extras", "--group", "dev", *ours, "--no-annotate", "--no-header", "--output-file", LOCK]
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run([*map(str, command), *options, *MEMBERS], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def check() -> None:
    """Stop with status 1 unless the lock holds pins with hashes and nothing else: no address, path or option."""
    rest = PINNED.sub("", LOCK.read_text())
    if rest:
        raise SystemExit(f"{LOCK.name} holds more than pins with hashes: {rest.splitlines()[0]}")


def main() -> None:
    """Write the lock, passing further options to uv, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("write", "check"))
    arguments, options = parser.parse_known_args()
    if arguments.job == "write":
        write(options)
    check()


if __name__ == "__main__":
    main()
