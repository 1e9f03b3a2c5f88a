"""Keeps the import of a user's module from ending, blocking or interrupting the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from runner.config.diagnostics import display_path
from runner.pipeline.import_effects import Effect, watched
from runner.units import format_duration, parse_duration

DEFAULT_TIMEOUT_S = 60.0
_NOTICE_S = 10.0
"""After how long an import that still runs is reported on stderr; after each further such time it is looked at."""


class ImportTooLong(BaseException):
    """An import has not ended in time. Not an Exception, because the module may catch those."""


class ProcessEnded(BaseException):
    """A module has called `os._exit` while it was imported."""


class Guard:
    """What happened during an import: Ctrl-C, as opposed to a KeyboardInterrupt of the module, and its effects."""

    def __init__(self) -> None:
        self.was_interrupted = False
        self.effects: list[Effect] = []


@contextmanager
def guarded(module: str) -> Iterator[Guard]:
    """Limit the time of an import, and turn `os._exit` into an error. Signals only work in the main thread."""
    guard, process, leave = Guard(), os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os._exit is not refuse or os.getpid() != process:  # after the import, or in a child of the module
            leave(status)
        raise ProcessEnded(f"os._exit({status})")

    os._exit = refuse
    try:
        if threading.current_thread() is threading.main_thread():
            with _alarm(module), _interrupts(guard), watched() as guard.effects:
                yield guard
        else:
            yield guard
    finally:
        if os._exit is refuse:
            os._exit = leave


@contextmanager
def _alarm(module: str) -> Iterator[None]:
    """Report an import that takes long, and end one that takes too long."""
    started, limit_s = time.monotonic(), _limit_s()

    def look(_: int, frame: FrameType | None) -> None:
        if time.monotonic() - started >= limit_s:
            raise ImportTooLong(format_duration(limit_s))
        if time.monotonic() - started < 2 * _NOTICE_S:
            place = f": {display_path(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""
            text = f'importing module "{module}" has taken {format_duration(_NOTICE_S)} so far{place}\n'
            os.write(2, text.encode("utf-8", "replace"))

    before = signal.signal(signal.SIGALRM, look)
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, min(_NOTICE_S, limit_s), min(_NOTICE_S, limit_s))
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is look:  # else the module has set its own
            left_s = max(left_s - (time.monotonic() - started), 0.001) if left_s else 0
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, left_s, interval_s)


@contextmanager
def _interrupts(guard: Guard) -> Iterator[None]:
    """Note that SIGINT arrived before it is handled as usual."""
    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        guard.was_interrupted = True
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)


def _limit_s() -> float:
    try:
        return parse_duration(os.environ.get("RUNNER_IMPORT_TIMEOUT", "")) or DEFAULT_TIMEOUT_S
    except ValueError:
        return DEFAULT_TIMEOUT_S
