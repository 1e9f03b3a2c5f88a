"""Locates errors for the author of the handler: the line in their code, and a traceback without our frames."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runner.config.messages import texts
from runner.outcome import ErrorInfo, RemoteError, error_text
from runner.tables import filled

_RUNNER_FOLDER = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


class RemoteTraceback(NamedTuple):
    """The location and the traceback of an error in another process, as text. Traceback objects cannot be pickled."""

    at: str | None
    text: str


class RemoteHandlerError(RemoteError):
    """An error that a handler raised in another process, with its location and traceback."""

    def __init__(self, raised: Sequence[ErrorInfo], remote_traceback: RemoteTraceback) -> None:
        super().__init__(raised)
        self.remote_traceback = remote_traceback


def capture_traceback(error: BaseException) -> RemoteTraceback:
    """Return the location and the traceback of an error as text."""
    return RemoteTraceback(error_location(error), traceback_text(error))


def error_location(error: BaseException | None) -> str | None:
    """Return `file:line` of the innermost frame in the user's code; None if there is none."""
    if isinstance(error, RemoteHandlerError):
        return error.remote_traceback.at
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(error_location, error.exceptions)), innermost_user_location(_frames(error)))
    return innermost_user_location(_frames(error))


def error_hint(error: BaseException | None) -> dict[str, str]:
    """Return the field `hint` of a log line: what to write, for errors of handlers that are often made."""
    text = error_text(error) if error is not None else ""
    for pattern, (_, hint) in texts("raised").items():
        if match := re.search(pattern, text):
            return {"hint": filled(hint, match.groupdict())}
    return {}


def innermost_user_location(frames: Sequence[traceback.FrameSummary]) -> str | None:
    """Return `file:line` of the innermost frame in the user's code; None if there is none."""
    own = [frame for frame in frames if not frame.filename.startswith((_RUNNER_FOLDER, *_LIBRARIES, "<"))]
    return f"{_relative_path(own[-1].filename)}:{own[-1].lineno}" if own else None


def user_frames(stack: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return a running stack from the first frame of the user's code that we called, inwards. Empty if it has none."""
    called = next((index for index, frame in enumerate(stack) if frame.filename.startswith(_RUNNER_FOLDER)), len(stack))
    frames = list(stack[called:])
    while frames and frames[0].filename.startswith((_RUNNER_FOLDER, *_LIBRARIES)):
        frames.pop(0)
    return frames if innermost_user_location(frames) else []


def traceback_text(error: BaseException | None) -> str:
    """Return the traceback as Python prints it, starting at the handler.

    For a group, its members' tracebacks follow.
    """
    if error is None:
        return ""
    if isinstance(error, RemoteHandlerError):
        return error.remote_traceback.text
    lines = traceback.format_list(_frames(error))
    text = "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n\n".join([text, *map(traceback_text, inner)])


def _frames(error: BaseException | None) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback without the leading ones, which only called the handler."""
    frames = list(traceback.extract_tb(error.__traceback__)) if error is not None else []
    while frames and frames[0].filename.startswith((_RUNNER_FOLDER, *_LIBRARIES)):
        frames.pop(0)
    return frames


def _relative_path(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except (ValueError, OSError):  # outside the current folder, or a handler has deleted that
        return filename
