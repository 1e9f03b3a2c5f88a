"""Which changes of files need a reload."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from runner.config.loader import is_pipeline_file
from runner.pipeline import sys_path
from runner.reload.version import Loader

STORM_RELOADS = 10
STORM_GAP_S = 1.0
"""After this many reloads for the same files, each so soon after the one before, the pipelines probably write them."""

SOURCES = (".py", ".yaml", ".yml", ".json", ".env")
"""Files that may correct a version that cannot be loaded, besides those that it has read."""


class FileChanges:
    """The changes that have not been taken yet. `has_any` is set when there are some."""

    def __init__(self, loader: Loader, paths: Sequence[Path]) -> None:
        self._loader = loader
        self._folders = [Path(os.path.abspath(path)) for path in paths if path.is_dir()]
        self._places = [Path(os.path.abspath(path if path.is_dir() else path.parent)) for path in paths]
        self._paths: set[Path] = set()
        self._is_forced = False
        self._ignored: set[Path] = set()
        self._repeated: tuple[set[Path], int] = (set(), 0)
        self._reloaded_at = -math.inf
        self.has_any = asyncio.Event()
        self.is_stale = threading.Event()
        """Set when other folders may have to be watched."""

    def roots(self) -> list[Path]:
        """Return the folders of the project: those of the pipelines, and those on the import path."""
        return [*self._places, *map(Path, sys_path.project_entries())]

    def file_folders(self) -> set[Path]:
        """Return the folders of the files that were read."""
        return {file.parent for file in list(self._loader.files)}

    def is_relevant(self, path: Path) -> bool:
        """Return whether a change of this file or folder may need a reload."""
        files, has_failed = self._loader.files, self._loader.has_failed
        if path in self._ignored:
            return False
        if path in files or self._is_new_pipeline(path) or (has_failed and path.suffix in SOURCES):
            return True
        if path.suffix == ".py" and path in self._loader.modules.files():
            return True
        if path.is_file():
            return False
        return (has_failed and path.is_dir()) or any(file.is_relative_to(path) for file in files)

    async def collect(self, changes: AsyncIterator[set[Path]]) -> None:
        """Take note of relevant changes, until they end."""
        async for paths in changes:
            self._paths |= paths
            self.has_any.set()

    def force(self) -> None:
        """Ask for a reload whether anything has changed or not."""
        self._is_forced = True
        self.has_any.set()

    def take(self) -> tuple[set[Path], bool]:
        """Return the files whose content has changed, and whether to reload in any case."""
        paths, self._paths = self._paths, set()
        is_forced, self._is_forced = self._is_forced, False
        self.has_any.clear()
        files = self._loader.changed_files(paths) | {path for path in paths if self._is_new_pipeline(path)}
        if self._loader.has_failed:
            files |= paths
        if is_forced or files - self._ignored:
            self._ignored = set()
        return files - self._ignored, is_forced

    def note_reload(self, now: float) -> None:
        """Remember when a reload has ended."""
        self._reloaded_at = now

    def is_storm(self, files: set[Path], now: float) -> bool:
        """Return whether these files change after each reload. They are ignored then until another file changes."""
        before, count = self._repeated
        count = count + 1 if files == before and now - self._reloaded_at < STORM_GAP_S else 1
        self._repeated = files, count
        if count > STORM_RELOADS:
            self._ignored, self._repeated = files, (set(), 0)
        return count > STORM_RELOADS

    def _is_new_pipeline(self, path: Path) -> bool:
        is_below = any(path.is_relative_to(folder) for folder in self._folders)
        return is_below and path not in self._loader.files and is_pipeline_file(path)
