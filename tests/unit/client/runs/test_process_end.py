"""The final status of runs that are open when their process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollforward import v1
from rollforward._journal.directory import Journal, journals
from rollforward._journal.reader import Reader
from rollforward._journal.records import Call

IMPORTS = "import os, signal, sys, threading\nimport rollforward as rf\n"
START = "r = rf.start_run('exit', offline=True)\n"
BLOCK = "with rf.start_run('exit', offline=True):\n    "
FAILING = "def fail(*_):\n    raise OSError\n"
HANDLER = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
PREEMPTED = "os.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()"
PARSE = "import argparse; argparse.ArgumentParser().parse_args(['--nope'])"
OWN_EXIT = "class Own(SystemExit):\n    pass\n"
EXIT_IN = "def main():\n    sys.exit({})\n"

CHILD = """
import multiprocessing
def work():
    run = rf.start_run('exit', offline=True)
    {}
if __name__ == '__main__':
    child = multiprocessing.get_context('{}').Process(target=work)
    child.start(); child.join()
"""

# By name: the program, its exit status, and the run's status.
ENDS: dict[str, tuple[str, int, list[str]]] = {
    "its end": (START, 0, ["FINISHED"]),
    "sys.exit()": (START + "sys.exit()", 0, ["FINISHED"]),
    "sys.exit(0)": (START + "sys.exit(0)", 0, ["FINISHED"]),
    "sys.exit(False)": (START + "sys.exit(False)", 0, ["FINISHED"]),
    "sys.exit(1)": (START + "sys.exit(1)", 1, ["FAILED"]),
    "sys.exit(0.0), which is printed": (START + "sys.exit(0.0)", 1, ["FAILED"]),
    "sys.exit('')": (START + "sys.exit('')", 1, ["FAILED"]),
    "sys.exit(text)": (START + "sys.exit('no data')", 1, ["FAILED"]),
    "sys.exit of what cannot be hashed": (START + "sys.exit([])", 1, ["FAILED"]),
    "sys.exit of several values": (START + "sys.exit((1, 2))", 1, ["FAILED"]),
    "sys.exit in a function": (EXIT_IN.format(3) + START + "main()", 3, ["FAILED"]),
    "exit, imported before": ("from sys import exit as leave\n" + START + "leave(3)", 3, ["FAILED"]),
    "exit(2)": (START + "exit(2)", 2, ["FAILED"]),
    "quit()": (START + "quit()", 0, ["FINISHED"]),
    "argparse": (START + PARSE, 2, ["FAILED"]),
    "raise SystemExit": (START + "raise SystemExit", 0, ["FINISHED"]),
    "raise SystemExit()": (START + "raise SystemExit()", 0, ["FINISHED"]),
    "raise SystemExit(0)": (START + "raise SystemExit(0)", 0, ["FINISHED"]),
    "raise SystemExit(4)": (START + "raise SystemExit(4)", 4, ["FAILED"]),
    "raise SystemExit(variable)": ("code = 0\n" + START + "raise SystemExit(code)", 0, ["FINISHED"]),
    "raise SystemExit(another variable)": ("code = 8\n" + START + "raise SystemExit(code)", 8, ["FAILED"]),
    "raise SystemExit(text)": (START + "raise SystemExit('no data')", 1, ["FAILED"]),
    "raise SystemExit in a function": ("def main():\n    raise SystemExit(5)\n" + START + "main()", 5, ["FAILED"]),
    "raise SystemExit(main())": ("def main():\n    return 6\n" + START + "raise SystemExit(main())", 6, ["FAILED"]),
    "a subclass of SystemExit": (OWN_EXIT + START + "raise Own(7)", 7, ["FAILED"]),
    "an exit that is caught": (START + "try:\n    sys.exit(1)\nexcept SystemExit:\n    pass", 0, ["FINISHED"]),
    "an exit that is caught, then one": (
        EXIT_IN.format(1) + START + "try:\n    main()\nexcept SystemExit:\n    sys.exit(0)",
        0,
        ["FINISHED"],
    ),
    "a code that is changed": (
        START + "try:\n    sys.exit(1)\nexcept SystemExit as e:\n    e.code = 0\n    raise",
        0,
        ["FINISHED"],
    ),
    "an error": (START + "1 / 0", 1, ["FAILED"]),
    "an error, with a hook": (
        START + "sys.excepthook = lambda *_: print('hooked')\n1 / 0",
        1,
        ["FAILED"],
    ),
    "a hook that exits": (START + "sys.excepthook = lambda *_: sys.exit(9)\n1 / 0", 9, ["FAILED"]),
    "KeyboardInterrupt": (START + "raise KeyboardInterrupt", -signal.SIGINT, ["KILLED"]),
    "SIGINT": (START + "os.kill(os.getpid(), signal.SIGINT)\nsignal.pause()", -signal.SIGINT, ["KILLED"]),
    "a handler of SIGTERM that exits": (HANDLER + START + PREEMPTED, 143, ["FAILED"]),
    "sys.exit in a thread": (
        START + "t = threading.Thread(target=sys.exit, args=(1,)); t.start(); t.join()",
        0,
        ["FINISHED"],
    ),
    "an error in a thread": (
        FAILING + START + "t = threading.Thread(target=fail); t.start(); t.join()",
        0,
        ["FINISHED"],
    ),
    "an error in atexit": (FAILING + START + "import atexit; atexit.register(fail)", 0, ["FINISHED"]),
    "an exit in atexit": (START + "import atexit; atexit.register(sys.exit, 3)", 0, ["FINISHED"]),
    "a child that fails": (
        START + "if os.fork() == 0:\n    sys.exit(1)\nos.wait()",
        0,
        ["FINISHED"],
    ),
    "a run of a forked child": (CHILD.format("pass", "fork"), 0, ["FINISHED"]),
    "a run of a forked child that fails": (CHILD.format("1 / 0", "fork"), 0, ["FAILED"]),
    "a run of a forked child that exits": (CHILD.format("sys.exit(3)", "fork"), 0, ["FAILED"]),
    "a run of a forked child that exits in order": (CHILD.format("sys.exit(0)", "fork"), 0, ["FINISHED"]),
    "a run of a spawned child": (CHILD.format("pass", "spawn"), 0, ["FINISHED"]),
    "a run of a spawned child that fails": (CHILD.format("1 / 0", "spawn"), 0, ["FAILED"]),
    "a run of a spawned child that exits": (CHILD.format("raise SystemExit(3)", "spawn"), 0, ["FAILED"]),
    "a child that has its parent's run": (
        "import multiprocessing\n"
        + START
        + "p = multiprocessing.get_context('fork').Process(target=sys.exit, args=(1,)); p.start(); p.join()",
        0,
        ["FINISHED"],
    ),
    "runs one in another": (START + START + "sys.exit(1)", 1, ["FAILED", "FAILED"]),
    "a run that ended before": (START + "r.finish()\nsys.exit(1)", 1, ["FINISHED"]),
    "a run that says how it ends": (START + "r.finish('KILLED')\nsys.exit(1)", 1, ["KILLED"]),
    "block: its end": (BLOCK + "pass", 0, ["FINISHED"]),
    "block: sys.exit(0)": (BLOCK + "sys.exit(0)", 0, ["FINISHED"]),
    "block: sys.exit(1)": (BLOCK + "sys.exit(1)", 1, ["FAILED"]),
    "block: sys.exit(0.0)": (BLOCK + "sys.exit(0.0)", 1, ["FAILED"]),
    "block: sys.exit of what cannot be hashed": (BLOCK + "sys.exit([])", 1, ["FAILED"]),
    "block: raise SystemExit(4)": (BLOCK + "raise SystemExit(4)", 4, ["FAILED"]),
    "block: argparse": (BLOCK + PARSE, 2, ["FAILED"]),
    "block: KeyboardInterrupt": (BLOCK + "raise KeyboardInterrupt", -signal.SIGINT, ["KILLED"]),
    "block: a handler of SIGTERM that exits": (
        HANDLER + BLOCK + PREEMPTED.replace("\n", "; "),
        143,
        ["FAILED"],
    ),
    "block: an error that is caught outside": (
        "try:\n    with rf.start_run('exit', offline=True):\n        1 / 0\nexcept ZeroDivisionError:\n    pass",
        0,
        ["FAILED"],
    ),
}

STATUS_NAMES = {number: name.removeprefix("RUN_STATUS_") for name, number in v1.RunStatus.items()}


def run_program(journal_root: Path, *command: str, stdin: str = "") -> int:
    """Run Python in a separate process; return its exit status."""
    environment = {**os.environ, "ROLLFORWARD_JOURNAL": str(journal_root)}
    return subprocess.run(
        [sys.executable, *command], env=environment, input=stdin, capture_output=True, text=True, check=False
    ).returncode


def statuses(journal_root: Path) -> list[str]:
    """Return the final statuses of the runs in these journals."""
    found: list[v1.RunStatus.ValueType] = []
    for folder in journals(journal_root):
        journal = Journal.open(folder)
        for segment_log in journal.segment_logs():
            reader = Reader(journal, segment_log)
            while batch := reader.next():
                requests = [step.action.request for step in batch.steps if isinstance(step.action, Call)]
                found += [request.status for request in requests if isinstance(request, v1.FinishRunRequest)]
                for step in batch.steps:
                    reader.note(step, step.content.minus(step.content))
                reader.settle()
    return sorted(STATUS_NAMES[status] for status in found)


@pytest.mark.parametrize("name", ENDS)
def test_run_status_follows_the_process_exit(name: str, journal_root: Path, tmp_path: Path) -> None:
    text, code, expected = ENDS[name]
    program = tmp_path / "job.py"
    program.write_text(IMPORTS + text)
    assert run_program(journal_root, str(program)) == code
    assert statuses(journal_root) == expected


@pytest.mark.parametrize(("code", "expected"), [(0, "FINISHED"), (3, "FAILED")])
def test_run_status_follows_the_exit_of_a_module(journal_root: Path, tmp_path: Path, code: int, expected: str) -> None:
    package = tmp_path / "job"
    package.mkdir()
    (package / "__main__.py").write_text(f"{IMPORTS}{START}sys.exit({code})")
    start = f"import os, sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); "
    assert (
        run_program(journal_root, "-c", start + "runpy.run_module('job', run_name='__main__', alter_sys=True)") == code
    )
    assert statuses(journal_root) == [expected]


AT_THE_PROMPT = {
    "an error before": ("1/0\n" + IMPORTS + START, ["FINISHED"]),
    "an error before, and quit()": ("1/0\n" + IMPORTS + START + "quit()\n", ["FINISHED"]),
    "an error after": (IMPORTS + START + "1/0\n", ["FAILED"]),
    "an error after, and quit()": (IMPORTS + START + "1/0\nquit()\n", ["FAILED"]),
    "an error between two runs": (IMPORTS + START + "1/0\n" + START, ["FAILED", "FINISHED"]),
    "an interruption": (IMPORTS + START + "raise KeyboardInterrupt\n", ["KILLED"]),
    "nothing": (IMPORTS + START, ["FINISHED"]),
}


@pytest.mark.parametrize("name", AT_THE_PROMPT)
def test_error_at_the_prompt_fails_open_runs(name: str, journal_root: Path) -> None:
    lines, expected = AT_THE_PROMPT[name]
    run_program(journal_root, "-i", "-q", "-c", "", stdin=lines)
    assert statuses(journal_root) == expected


def test_interactive_program_has_its_own_exit_status(journal_root: Path, tmp_path: Path) -> None:
    program = tmp_path / "job.py"
    program.write_text(IMPORTS + START + "sys.exit(0)")
    assert run_program(journal_root, "-i", str(program)) == 0
    assert statuses(journal_root) == ["FINISHED"]


def test_exit_functions_are_restored_when_no_run_is_open(journal_root: Path, tmp_path: Path) -> None:
    program = tmp_path / "job.py"
    program.write_text(
        IMPORTS
        + "before = sys.exit, exit, quit\n"
        + START
        + "assert before[0] is not sys.exit\n"
        + "try:\n    sys.exit(3)\nexcept SystemExit as error:\n    assert error.code == 3 and error.args == (3,)\n"
        + "r.finish()\nassert before == (sys.exit, exit, quit)\n"
        + START
        + "sys.exit = mine = lambda code=None: before[0](code)\nr.finish()\nassert sys.exit is mine\n"
        + "sys.exit = before[0]"
    )
    assert run_program(journal_root, str(program)) == 0
    assert statuses(journal_root) == ["FINISHED", "FINISHED"]
