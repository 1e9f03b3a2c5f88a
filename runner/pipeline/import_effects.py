"""What the import of a module does to the process: another current folder, signal handlers, threads, warnings."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.pipeline.import_problems import Place, field_place, is_of_the_user, place_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Effect = tuple[str, Place | None]
"""Something that a module does when it is imported, as in `chdir /tmp`, and the place in the user's code."""


@contextmanager
def watched() -> Iterator[list[Effect]]:
    """Collect the effects of an import. The current folder is put back: the paths of the command line depend on it."""
    found: list[Effect] = []
    modules, threads, folder = set(sys.modules), set(threading.enumerate()), _folder()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    show = warnings.showwarning

    def note(message: Any, category: Any, file: str, line: int, *rest: Any) -> None:
        text = str(message)
        if "shadows an attribute in parent" in text and is_of_the_user(file):
            found.append((text, field_place(file, line, text.split('"')[1])))
        else:
            show(message, category, file, line, *rest)

    warnings.showwarning = note  # type: ignore[assignment]  # it passes on what it gets
    try:
        yield found
    finally:
        warnings.showwarning = show
    if folder and _folder() != folder:
        found.append((f"chdir {_folder()}", _place(r"\bchdir\(", modules)))
        os.chdir(folder)
    for number, before in handlers.items():
        if callable(now := signal.getsignal(number)) and now is not before:
            found.append((f"signal {number.name}", _place(rf"\bsignal\(.*{number.name}|\bsignal\(", modules)))
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())  # they end with the process
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon and thread not in pools:
            found.append((f"thread {thread.name}", _place(r"\bThread\(.*start\(|\.start\(\)", modules)))  # noqa: PERF401


def _place(pattern: str, modules: set[str]) -> Place | None:
    """Return the first place of a call in the modules of the user that were imported meanwhile."""
    for name in [name for name in sys.modules if name not in modules]:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.endswith(".py") and is_of_the_user(file):
            for line, text in enumerate(Path(file).read_text("utf-8", "replace").splitlines(), 1):
                if re.search(pattern, text):
                    return place_of(file, line)
    return None


def _folder() -> str:
    with suppress(OSError):  # it may be gone
        return os.getcwd()
    return ""
