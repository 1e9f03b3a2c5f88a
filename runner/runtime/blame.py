"""Turns what a handler raised into words for its author: where in their code, and the traceback without our frames."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_OURS = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def raised_at(error: BaseException | None) -> str | None:
    """Return `file:line` of the innermost frame in the user's own code, None where there is none."""
    frames = [frame for frame in _frames(error) if not frame.filename.startswith((_OURS, *_LIBRARIES, "<"))]
    return f"{_shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else None


def traceback_text(error: BaseException | None) -> str:
    """Return the traceback as Python prints it, from the handler inwards."""
    if error is None:
        return ""
    lines = traceback.format_list(_frames(error))
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()


def _frames(error: BaseException | None) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback without those, at its beginning, that only called the handler."""
    frames = list(traceback.extract_tb(error.__traceback__)) if error is not None else []
    while frames and frames[0].filename.startswith((_OURS, *_LIBRARIES)):
        frames.pop(0)
    return frames


def _shown(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
