"""Build .venv from requirements.lock with nothing but a Python and its pip; run by `make setup`."""

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
EDITABLE = ("client", ".")


def run(*command: str | Path) -> None:
    """Run a command in the project root; stop with its exit status when it fails, its own words are on stderr."""
    status = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment(), check=False).returncode
    if status:
        raise SystemExit(f"setup: `{Path(command[0]).name}` failed with status {status}")


def environment() -> dict[str, str]:
    """Return this process's variables, without those of another virtual environment, with those that uv needs here."""
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    if system_certificates():
        env.setdefault("UV_SYSTEM_CERTS", "true")
    if "UV_CACHE_DIR" not in env and not os.access(Path.home(), os.W_OK):
        env["UV_CACHE_DIR"] = str(VENV / "cache")
    return env


def system_certificates() -> bool:
    """Return whether the machine has certificates of its own; a company's are only there, not among those inside uv."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))


def locked(name: str) -> str:
    """Return the lines of one package in the lock: its version and its hashes."""
    found = re.search(rf"^{re.escape(name)}==(?:.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{LOCK.name} does not name {name}: run `make lock` where uv is at hand")
    return found[0]


def create_environment() -> None:
    """Create .venv again and put the locked uv into it.

    The interpreter's own pip does the install (`pip --python`), so Debian's separate python3-venv is not needed.
    """
    if VENV.is_symlink():
        VENV.unlink()
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", "--without-pip", VENV)
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "uv.txt")
        requirements.write_text(locked("uv"))
        pip = (sys.executable, "-m", "pip", "--python", PYTHON, "--disable-pip-version-check", "install", "-qq")
        run(*pip, "--require-hashes", "--no-deps", "-r", requirements)


def install() -> None:
    """Install what the lock says, then the two distributions of this tree, editable.

    Nothing is resolved here, nor built in an environment of its own: what comes from outside has its hash in the lock.
    """
    uv = (VENV / "bin" / "uv", "--quiet", "pip")
    # Compiled once here, so that every process starts fast, also under a user or a setting that writes no bytecode.
    run(*uv, "install", "--python", PYTHON, "--compile-bytecode", "--require-hashes", "--no-deps", "-r", LOCK)
    editable = [part for folder in EDITABLE for part in ("--editable", folder)]
    run(*uv, "install", "--python", PYTHON, "--offline", "--no-deps", "--no-build-isolation", *editable)


def explain_missing_tools() -> None:
    """Stop with one clear line when this interpreter cannot do the job."""
    for module, package in (("venv", "python3-venv"), ("pip", "python3-pip")):
        if subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, check=False).returncode:
            raise SystemExit(f"{sys.executable} lacks `{module}`: install it (Debian, Ubuntu: apt install {package})")


def main(stamp: Path) -> None:
    """Set up .venv and write `stamp`; without the stamp .venv is taken as unfinished or moved, and created again."""
    explain_missing_tools()
    if not stamp.exists() or not os.access(PYTHON, os.X_OK):
        print("setup: creating .venv", flush=True)
        create_environment()
    print("setup: installing the locked packages (the first time this takes a minute or more)", flush=True)
    install()
    stamp.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
