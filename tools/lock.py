"""Keep the locks: every package of every extra with its hashes, and no address of where it came from."""

import argparse
import os
import re
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("rollforward", "rollforward-server")
# What each lock resolves. The site's generator is 90 MB that no test needs, so it has a lock of its own.
LOCKS = {
    ROOT / "requirements.lock": ("--all-extras", "--group", "dev", "pyproject.toml", "client/pyproject.toml"),
    ROOT / "docs" / "requirements.lock": ("--group", "docs"),
}
OLDEST_PYTHON = "3.11"
PINNED = re.compile(r"[a-z0-9-]+==\S+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


def write(options: list[str]) -> None:
    """Resolve for every platform and Python at once; pins stay as they are unless `options` asks for an upgrade."""
    ours = [part for name in OURS for part in ("--no-emit-package", name)]
    uv = Path(sysconfig.get_path("scripts"), "uv")
    command = [uv, "--quiet", "pip", "compile", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += [*ours, "--no-annotate", "--no-header"]
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for lock, inputs in LOCKS.items():
        arguments = [*map(str, command), "--output-file", str(lock), *options, *inputs]
        subprocess.run(arguments, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def check() -> None:
    """Stop with status 1 unless the locks hold pins with hashes and nothing else: no address, path or option."""
    for lock in LOCKS:
        rest = PINNED.sub("", lock.read_text())
        if rest:
            name = lock.relative_to(ROOT)
            raise SystemExit(f"{name} holds more than pins with hashes: {rest.splitlines()[0]}. Run `make lock`")


def main() -> None:
    """Write the locks, passing further options to uv, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("write", "check"))
    arguments, options = parser.parse_known_args()
    if arguments.job == "write":
        write(options)
    check()


if __name__ == "__main__":
    main()
