"""The exit status of this process, for runs that are still open when it exits."""

from __future__ import annotations

import atexit
import builtins
import dis
import itertools
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

Ending = Literal["FINISHED", "FAILED", "KILLED"]

_SEEN_ATTRIBUTE: Final = "_rollforward_seen"
_UNKNOWN: Final = object()
_CODE: Final[Any] = SystemExit.__dict__["code"]
_PADDING: Final = frozenset({"precall", "cache", "push_null"})  # differs between versions of Python

_logger: Final = logging.getLogger("rollforward")
_clock: Final = itertools.count(1)
_lock: Final = threading.RLock()


def ending_of(error: BaseException | None) -> Ending:
    """Return the final status of a run whose block an exception left; FINISHED without one."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit):
        return _ending_of_code(getattr(error, "code", error))
    return "FINISHED" if error is None else "FAILED"


class ProcessEnd:
    """An observer of this process's end, which ignores errors from before its creation.

    Only the interpreter knows the exit status: it reads the `code` of the uncaught SystemExit. While an observer is
    open, `sys.exit`, `exit` and `quit` raise a SystemExit that records this read.
    """

    def __init__(self) -> None:
        """Start observing."""
        _open.add(self)
        self._closed = False
        self._main = _frame_of_main_thread(_is_program)
        self._child = _frame_of_main_thread(_is_multiprocessing_child)
        self._started = next(_clock)
        _mark(getattr(sys, "last_value", None), self._started)

    def close(self) -> None:
        """Stop observing; the last instance to close restores `sys.exit`."""
        self._closed = True
        atexit.unregister(self._finish)
        _open.discard(self)

    def call_at_exit(self, finish: Callable[[Ending], None]) -> None:
        """Call `finish` with the final status of a run when this process ends."""
        atexit.register(self._finish, finish)
        if self._child is not None:
            # Before Python 3.13 such a child does not run atexit functions, but it runs finalizers.
            from multiprocessing.util import Finalize  # noqa: PLC0415 - loaded already

            Finalize(None, self._finish, (finish,), exitpriority=0)

    def _finish(self, finish: Callable[[Ending], None]) -> None:
        if self._closed:
            return
        if self._child is None:
            finish(self.ending())
        elif error := sys.exc_info()[1]:
            finish(ending_of(error))
        else:
            finish(_ending_of_code(self._child.f_locals.get("exitcode")))

    def ending(self) -> Ending:
        """Return the final status of a run that is open now, while the interpreter shuts down."""
        if _status.known and _ending_of_code(_status.code) != "FINISHED":
            return "FAILED"
        error = getattr(sys, "last_value", None)
        if isinstance(error, BaseException) and getattr(error, _SEEN_ATTRIBUTE, self._started + 1) > self._started:
            return ending_of(error)
        if _status.known or self._main is None or not _was_left_by_error(self._main):
            return "FINISHED"
        code = _raised_status(self._main)
        if code is _UNKNOWN:
            _logger.warning("exit status unknown, marking the run as FAILED: exit with sys.exit(), or call finish()")
        return _ending_of_code(code)


class _Status:
    """The interpreter's exit status, once it is known."""

    def __init__(self) -> None:
        self.known = False
        self.code: object = None


class _Exit(SystemExit):
    """A SystemExit that records when the interpreter reads its code."""

    @property
    def code(self) -> Any:
        """The exit status."""
        code = _CODE.__get__(self)
        if not _has_caller():
            _status.known, _status.code = True, code
        return code

    @code.setter
    def code(self, value: Any) -> None:
        _CODE.__set__(self, value)

    def __reduce__(self) -> tuple[object, ...]:
        return SystemExit, self.args


class _OpenEnds:
    """The open instances of ProcessEnd; while there are any, the exit functions are replaced."""

    def __init__(self) -> None:
        self._ends: set[ProcessEnd] = set()
        self._replaced: list[tuple[Any, str, object, object]] = []

    def add(self, end: ProcessEnd) -> None:
        with _lock:
            if not self._ends:
                self._replace()
            self._ends.add(end)

    def discard(self, end: ProcessEnd) -> None:
        with _lock:
            self._ends.discard(end)
            if not self._ends:
                self._restore()

    def _replace(self) -> None:
        for owner, name in ((sys, "exit"), (builtins, "exit"), (builtins, "quit")):
            before = getattr(owner, name, None)
            if before is not None and not isinstance(before, _ExitFunction):  # `python -S` has no exit() or quit()
                after = _ExitFunction(before)
                setattr(owner, name, after)
                self._replaced.append((owner, name, before, after))

    def _restore(self) -> None:
        for owner, name, before, after in self._replaced:
            if getattr(owner, name, None) is after:  # do not undo another library's replacement
                setattr(owner, name, before)
        self._replaced.clear()


class _ExitFunction:
    """A replacement for an exit function."""

    def __init__(self, before: Callable[..., object]) -> None:
        self._before = before
        self.__doc__ = before.__doc__
        self.__name__ = getattr(before, "__name__", "exit")
        self.__wrapped__ = before

    def __call__(self, status: object = None, /) -> NoReturn:
        try:
            self._before(status)
        except SystemExit as error:
            # In other threads it ends the thread, and threading accepts only SystemExit itself.
            if type(error) is SystemExit and threading.current_thread() is threading.main_thread():
                raise _Exit(*error.args).with_traceback(None) from None
            raise
        raise SystemExit(status)

    def __repr__(self) -> str:
        return repr(self._before)


_status: Final = _Status()
_open: Final = _OpenEnds()


def _ending_of_code(code: object) -> Ending:
    # As the interpreter does: any other object is printed, and the status is 1.
    return "FINISHED" if code is None or (isinstance(code, int) and code == 0) else "FAILED"


def _mark(error: object, when: int) -> None:
    # A mark, not a reference: a reference would keep the frames' objects alive, such as GPU memory.
    if isinstance(error, BaseException) and not hasattr(error, _SEEN_ATTRIBUTE):
        setattr(error, _SEEN_ATTRIBUTE, when)


def _has_caller() -> bool:
    try:
        sys._getframe(2)  # noqa: SLF001 - the frames of this function and the property
    except ValueError:
        return False
    return True


def _frame_of_main_thread(matches: Callable[[FrameType], bool]) -> FrameType | None:
    """Return the outermost matching frame of the main thread."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001
    outermost = None
    while frame is not None:
        if matches(frame):
            outermost = frame
        frame = frame.f_back
    return outermost


def _is_program(frame: FrameType) -> bool:
    """Return whether a frame is the main module's, whose variables live as long as the process."""
    names = getattr(sys.modules.get("__main__"), "__dict__", None)
    return frame.f_code.co_name == "<module>" and frame.f_globals is names


def _is_multiprocessing_child(frame: FrameType) -> bool:
    """Return whether a frame is the one that runs a multiprocessing child; it holds the exit status."""
    return frame.f_code.co_name == "_bootstrap" and frame.f_globals.get("__name__") == "multiprocessing.process"


def _was_left_by_error(frame: FrameType) -> bool:
    return not dis.opname[frame.f_code.co_code[frame.f_lasti]].lower().startswith("return")


def _raised_status(frame: FrameType) -> object:
    """Return the N of `raise SystemExit(N)`, if it is a constant or a variable; None for `raise SystemExit`."""
    steps = [step for step in dis.get_instructions(frame.f_code) if step.opname.lower() not in _PADDING]
    at = next((number for number, step in enumerate(steps) if step.offset == frame.f_lasti), 0)
    before = [step.opname.lower() for step in steps[:at]]
    if steps[at].opname.lower() != "raise_varargs" or steps[at].arg != 1:
        return _UNKNOWN
    if before[-1:] == ["load_name"] or (before[-2:-1] == ["load_name"] and steps[at - 1].arg == 0):
        return None
    if before[-3::2] == ["load_name", "call"]:
        argument = steps[at - 2]
        if before[-2] in {"load_const", "load_small_int"}:
            return argument.argval
        if before[-2] == "load_name":
            return frame.f_globals.get(argument.argval, _UNKNOWN)
    return _UNKNOWN
