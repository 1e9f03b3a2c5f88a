"""What the import of a module does to the process: another current folder, signal handlers, threads, warnings."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from runner.pipeline.import_problems import Place, field_place, is_of_the_user, place_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Effect(NamedTuple):
    """Something that a module does when it is imported, as in `chdir /tmp`, and the place in the user's code."""

    subject: str
    place: Place | None


@contextmanager
def watched() -> Iterator[list[Effect]]:
    """Collect the effects of an import. The current folder is put back: the paths of the command line depend on it."""
    found: list[Effect] = []
    places: dict[Any, Place | None] = {}
    folder, threads = _folder(), set(threading.enumerate())
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    show = warnings.showwarning

    def note(message: Any, category: Any, file: str, line: int, *rest: Any) -> None:
        text = str(message)
        if "shadows an attribute in parent" in text and is_of_the_user(file):
            found.append(Effect(text, field_place(file, line, text.split('"')[1])))
        else:
            show(message, category, file, line, *rest)

    watched: tuple[tuple[Any, str], ...] = ((os, "chdir"), (signal, "signal"), (threading.Thread, "start"))
    originals = [getattr(owner, name) for owner, name in watched]
    for (owner, name), original in zip(watched, originals, strict=True):
        setattr(owner, name, _recording(original, name, places))
    warnings.showwarning = note  # type: ignore[assignment]  # it passes on what it gets
    try:
        yield found
    finally:
        for (owner, name), original in zip(watched, originals, strict=True):
            setattr(owner, name, original)
        warnings.showwarning = show
    if folder and _folder() != folder:
        found.append(Effect(f"chdir {_folder()}", places.get("chdir")))
        os.chdir(folder)
    for number, before in handlers.items():
        if callable(now := signal.getsignal(number)) and now is not before:
            found.append(Effect(f"signal {number.name}", places.get(number)))
    new = (thread for thread in set(threading.enumerate()) - threads if not thread.daemon)
    found += [Effect(f"thread {each.name}", places.get(each)) for each in new if not _ends_by_itself(each)]


def _recording(original: Callable[..., Any], name: str, places: dict[Any, Place | None]) -> Callable[..., Any]:
    """Return a function that notes the place of its calls, by their first argument or for `chdir` by its name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        frame = sys._getframe(1)
        while frame.f_back is not None and (
            frame.f_code.co_filename.startswith("<") or not is_of_the_user(frame.f_code.co_filename)
        ):
            frame = frame.f_back
        if args:
            places["chdir" if name == "chdir" else args[0]] = place_of(frame.f_code.co_filename, frame.f_lineno)
        return original(*args, **kwargs)

    return call


def _folder() -> str:
    with suppress(OSError):  # it may be gone
        return os.getcwd()
    return ""


def _ends_by_itself(thread: threading.Thread) -> bool:
    """Whether a thread is one of a ThreadPoolExecutor, which end with the process."""
    pools = sys.modules.get("concurrent.futures.thread")
    return thread in getattr(pools, "_threads_queues", ())
