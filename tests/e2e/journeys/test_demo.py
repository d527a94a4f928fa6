"""The demo as a newcomer runs it: it passes repeatedly, reports failures, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.program import gone, until
from tests.timeouts import scaled

SCRIPT = Path(sys.executable).with_name("rollforward")
SECONDS = scaled(120)

pytestmark = pytest.mark.timeout(2 * SECONDS)


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo, with its temporary files in `home`."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("ROLLFORWARD_")}
    return subprocess.Popen(
        [SCRIPT, "demo", *options],
        cwd=home,
        env={**plain, "TMPDIR": str(home), "HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Yield a function that starts demos; end those that a failed test left."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        started.append(start(tmp_path, *options))
        return started[-1]

    yield begin
    for program in started:
        with program:
            program.terminate()


def descendants(program: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """Return the descendants of a program."""
    return {child.pid: child for child in psutil.Process(program.pid).children(recursive=True)}


def read_output(program: subprocess.Popen[str], seen: dict[int, psutil.Process]) -> str:
    """Return all output of a demo, and note every process that it starts."""
    lines: list[str] = []
    assert program.stdout is not None
    for line in program.stdout:
        lines.append(line)
        if program.poll() is None:
            seen.update(descendants(program))
    return "".join(lines)


def wait_for_step(program: subprocess.Popen[str], step: int) -> None:
    """Return when a demo begins a step; what it prints after that is read and dropped."""
    assert program.stdout is not None
    assert any(line.startswith(f"[{step}/6]") for line in program.stdout)
    threading.Thread(target=program.stdout.read, daemon=True).start()


def check_nothing_left(home: Path, seen: dict[int, psutil.Process]) -> None:
    """Check that no noted process runs, and that no temporary file is left."""
    assert seen
    assert [process for process in seen.values() if not gone(process.pid)] == []
    assert list(home.glob("rollforward-demo-*")) == []


def test_demo_passes_twice_and_stops_its_processes(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    for version in (1, 3):
        seen: dict[int, psutil.Process] = {}
        program = demo("--data", "kept")
        text = read_output(program, seen)
        assert program.stderr is not None
        assert (program.wait(SECONDS), program.stderr.read()) == (0, "")
        check_summary(" ".join(text.split()), version)
        assert len(seen) >= 7  # NATS, the services, four training jobs, the pod
        check_nothing_left(tmp_path, seen)
    assert (tmp_path / "kept").is_dir()


def check_summary(text: str, version: int) -> None:
    """Check the demo's summary when its first new version is `version`."""
    old, new = f"v{version}", f"v{version + 1}"
    closing = re.search(
        rf"All six steps passed: (\d+) requests, 0 failed; {old} -> {new} in (\d+) ms, back in (\d+) ms;"
        r" (\d+) read models equal to their rebuild; (\d+) s\.",
        text,
    )
    assert closing, text
    requests, _, _, models, _ = map(int, closing.groups())
    assert requests >= 360
    assert models == 11
    assert len(re.findall(r"refused GATE_FAILED", text)) == 2
    assert re.search(rf"ANSWERED BY .* {old} \d+ 0 \S+ {new} \d+ 0 \S+ {old} \d+ 0 \S+", text)
    assert re.search(rf"@champion {new} {old} rollback of \d+", text)


def test_demo_without_directory_keeps_nothing_and_shows_how_to_keep(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = demo()
    text, errors = program.communicate(timeout=SECONDS)
    assert (program.returncode, errors) == (0, "")
    assert re.search(r"rollforward demo --data \S+\n", text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_demo_stops_its_processes(
    number: signal.Signals, demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = demo()
    wait_for_step(program, 2)
    until(lambda: len(descendants(program)) >= 6, "the training jobs")
    seen = descendants(program)
    program.send_signal(number)
    code = program.wait(SECONDS)
    if number is signal.SIGKILL:
        until(lambda: all(gone(pid) for pid in seen), "the end of its processes")
        return
    assert code == 128 + number
    check_nothing_left(tmp_path, seen)


def test_failed_step_ends_demo_with_reason(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    program = demo()
    wait_for_step(program, 5)
    seen = descendants(program)
    (pod,) = (process for process in seen.values() if "serve" in process.cmdline())
    pod.kill()
    assert program.wait(SECONDS) == 1
    assert program.stderr is not None
    assert program.stderr.read().startswith("rollforward: the demo failed: ")
    check_nothing_left(tmp_path, seen)
