"""Locates errors for the author of the handler: the line in their code, and a traceback without our frames."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runner.config.messages import closest, texts
from runner.errors import Reject, RetryLater
from runner.outcome import ErrorInfo, RemoteError, ResultFailed, RetryPolicy, error_text, error_type, flatten_errors
from runner.tables import filled

_RUNNER_FOLDER = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_FOREIGN = (_RUNNER_FOLDER, *_LIBRARIES, "<")
"""Where the files of code begin that is not the user's."""

_MAX_CAUSES = 10
_MAX_DICTS = 100
"""How many dicts of a function, and keys of each, are compared with a key that is missing."""


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


def error_fields(error: BaseException) -> dict[str, str | None]:
    """Return the fields of a log line that say what an error is, and where it was raised."""
    return {"error": error_text(error), "error_type": error_type(error), "at": error_location(error)}


def error_hint(error: BaseException | None, policy: RetryPolicy | None = None) -> dict[str, str]:
    """Return the field `hint` of a log line: what to write, or by which key of `policy` the error is not retried."""
    text = error_text(error) if error is not None else ""
    for pattern, (_, hint) in texts("raised").items():
        if match := re.search(pattern, text):
            return {"hint": filled(hint, match.groupdict())}
    if isinstance(error, KeyError) and (name := _missing_variable(error)):
        return {"hint": f"set the variable {name}: `export {name}=…`, or in a file that --env-file names"}
    if isinstance(error, KeyError) and (near := _near_key(error)):
        return {"hint": f'did you mean ["{near}"]?'}
    if isinstance(error, RetryLater) and isinstance(error.__cause__ or error.__context__, Reject):
        return {"hint": "`except Exception` catches Reject, too: write `except Reject: raise` before it"}
    items = () if error is None or policy is None or isinstance(error, ResultFailed) else flatten_errors(error)
    if any(item.is_a(Reject) for item in items):
        return {}
    refused = (item for item in items if not item.is_a(RetryLater) and policy is not None and not policy.covers(item))
    if (item := next(refused, None)) is not None and policy is not None:
        is_excluded = any(map(item.is_a, policy.not_on))
        return {"hint": f"{item.name} is {'in retry.not_on' if is_excluded else 'not in retry.on'}: it is not retried"}
    return {}


def _missing_variable(error: KeyError) -> str:
    """Return the name of an environment variable that `os.environ[…]` lacks, "" for another KeyError."""
    frames = _frames(error)
    is_environ = bool(frames) and frames[-1].filename in ("<frozen os>", os.__file__)
    return str(error.args[0]) if is_environ and error.args else ""


def _near_key(error: KeyError) -> str:
    """Return the key of a dict in the failing function that a missing one may mean, "" if there is none near."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = error.args[0] if error.args else None
    if trace is None or not isinstance(name, str) or trace.tb_frame.f_code.co_filename.startswith(_FOREIGN):
        return ""
    dicts = [value for value in trace.tb_frame.f_locals.values() if type(value) is dict]
    dicts += [inner for value in dicts for inner in value.values() if type(inner) is dict]
    names = [[key for key in found if isinstance(key, str)] for found in dicts[:_MAX_DICTS] if name not in found]
    return next(filter(None, (closest(name, keys[:_MAX_DICTS]) for keys in names)), "")


def innermost_user_location(frames: Sequence[traceback.FrameSummary]) -> str | None:
    """Return `file:line` of the innermost frame in the user's code; None if there is none."""
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)]
    return f"{_relative_path(own[-1].filename)}:{own[-1].lineno}" if own else None


def user_frames(stack: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return a running stack from the first frame of the user's code that we called, inwards. Empty if it has none."""
    called = next((index for index, frame in enumerate(stack) if frame.filename.startswith(_RUNNER_FOLDER)), len(stack))
    frames = list(stack[called:])
    while frames and frames[0].filename.startswith((_RUNNER_FOLDER, *_LIBRARIES)):
        frames.pop(0)
    return frames if innermost_user_location(frames) else []


def traceback_text(error: BaseException | None, seen: tuple[BaseException, ...] = ()) -> str:
    """Return the traceback as Python prints it, starting at the handler, after those of its causes.

    For a group, its members' tracebacks follow.
    """
    if error is None:
        return ""
    if isinstance(error, RemoteHandlerError):
        return error.remote_traceback.text
    seen, (before, words) = (*seen, error), _before(error)
    parts = (
        [traceback_text(before, seen), words]
        if before is not None and before not in seen and len(seen) < _MAX_CAUSES
        else []
    )
    lines = traceback.format_list(_frames(error))
    text = "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n\n".join([*parts, text, *(traceback_text(each, seen) for each in inner)])


def _before(error: BaseException) -> tuple[BaseException | None, str]:
    """Return the error that this one was raised from, or that the user's code was handling, and what Python says."""
    if error.__cause__ is not None:
        return error.__cause__, "The above exception was the direct cause of the following exception:"
    is_shown = not error.__suppress_context__ and error_location(error.__context__) is not None
    words = "During handling of the above exception, another exception occurred:"
    return error.__context__ if is_shown else None, words


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
