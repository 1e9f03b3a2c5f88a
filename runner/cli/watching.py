"""Watches folders for changes of files (the extra `dev`), for `runner dev`, `--watch`, and everything that runs again
when a file is saved.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from runner.config.loader import is_skipped_folder
from runner.errors import RunnerError

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

QUIET_S = 0.06
"""For how long no file may change before a change is reported. Editors write in steps, and Git writes many files."""

LONGEST_S = 3.0
"""After this time a change is reported even if files still change."""

STEP_MS, BATCH_MS, IDLE_S = 20, 60, 0.3

MAX_FOLDERS = 1000
"""How many folders of a project are watched at most, the outer ones first."""


class WatchUnavailable(RunnerError):
    """The library that watches files is not installed."""

    exit_code = 2


def require_watchfiles() -> None:
    """Raise WatchUnavailable if the library is not installed."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        text = "watching files needs the library watchfiles"
        raise WatchUnavailable(text, 'install it: pip install "mqrunner[dev]"') from None


def project_folders(roots: Iterable[Path]) -> list[Path]:
    """Return these folders and those below them; not hidden ones, virtual environments and `node_modules`."""
    found: dict[Path, None] = {}
    todo = deque(Path(os.path.abspath(root)) for root in roots)
    while todo and len(found) < MAX_FOLDERS:
        folder = todo.popleft()
        if folder in found:
            continue
        found[folder] = None
        try:
            with os.scandir(folder) as entries:
                below = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
        todo += [path for path in map(Path, below) if path.name != "__pycache__" and not is_skipped_folder(path)]
    return list(found)


async def watch(
    folders: Callable[[], Iterable[Path]],
    is_relevant: Callable[[Path], bool] = lambda _: True,
    is_stale: Event | None = None,
) -> AsyncIterator[set[Path]]:
    """Yield the absolute paths of relevant files and folders in `folders` that have changed, once they are quiet.

    Folders are watched without those below them. `folders` is called again after each yield, when a file or folder is
    gone or a folder is new, and when `is_stale` is set; folders that come are changes themselves. Instead of a folder
    that does not exist, the nearest one above it is watched. While the caller works on what was yielded, further
    changes are kept for the next time. Raises WatchUnavailable.
    """
    require_watchfiles()
    loop, watched = asyncio.get_running_loop(), _Watched(folders, is_stale or Event())
    pool = ThreadPoolExecutor(1, thread_name_prefix="watch")
    try:
        changed: set[Path] = set()
        first = last = 0.0
        while True:
            new = await loop.run_in_executor(pool, watched.wait, QUIET_S if changed else IDLE_S)
            found, now = {path for path in new if is_relevant(path)}, loop.time()
            first, last = (now if found and not changed else first), (now if found else last)
            changed |= found
            if changed and (now - last >= QUIET_S or now - first >= LONGEST_S):
                yield changed
                changed = await loop.run_in_executor(pool, watched.renew)
                changed = {path for path in changed if is_relevant(path)}
                first = last = loop.time()
    finally:
        watched.close(pool)


class _Watched:
    """The folders that are watched now. All methods but `close` run in one thread."""

    def __init__(self, folders: Callable[[], Iterable[Path]], is_stale: Event) -> None:
        self._wanted = folders
        self._is_stale = is_stale
        self._closed = Event()
        self._folders: set[Path] = set()
        self._watcher = self._open()

    def wait(self, timeout_s: float) -> set[Path]:
        """Wait for changes, and return their paths."""
        changed = self._read(self._watcher, int(timeout_s * 1000))
        # A folder that was deleted may be there again, and is another one then: the watch of the old one is dead.
        is_dead = not self._folders.isdisjoint(changed)
        if is_dead or self._is_stale.is_set() or not all(os.path.isfile(path) for path in changed):
            changed |= self.renew(is_dead=is_dead)
        return changed

    def renew(self, *, is_dead: bool = False) -> set[Path]:
        """Watch the folders that are wanted now. Return what has changed before that, and the folders that are new.

        What is in a new folder already does not change any more, so the folder stands for it.
        """
        self._is_stale.clear()
        if self._closed.is_set() or (self._existing() == self._folders and not is_dead):
            return set()
        folders, before = self._folders, self._watcher
        self._watcher = self._open()
        changed = self._read(before, 1)
        before.close()
        return changed | (self._folders - folders)

    def close(self, pool: ThreadPoolExecutor) -> None:
        """End a `wait`, and stop watching."""
        self._closed.set()
        pool.submit(lambda: self._watcher.close())
        pool.shutdown(wait=False)

    def _read(self, watcher: RustNotify, timeout_ms: int) -> set[Path]:
        # The event must only be set at the end: a wait that it ends forgets the changes that it has seen.
        changes = watcher.watch(BATCH_MS, STEP_MS, timeout_ms, self._closed)
        return set() if isinstance(changes, str) else {Path(path) for _, path in changes}

    def _existing(self) -> set[Path]:
        return {_nearest(Path(os.path.abspath(folder))) for folder in self._wanted()}

    def _open(self) -> RustNotify:
        from watchfiles._rust_notify import RustNotify

        while True:
            self._folders = self._existing()
            try:
                watcher = RustNotify([str(folder) for folder in self._folders], False, False, 300, False, True)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except OSError as error:
                hint = "Linux limits them: raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
                raise WatchUnavailable(f"files cannot be watched: {error}", hint) from None
            if self._existing() == self._folders:
                return watcher
            watcher.close()  # a folder has come or gone meanwhile, and would not be noticed


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next((each for each in (folder, *folder.parents) if os.path.isdir(each)), folder)
