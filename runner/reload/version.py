"""Versions of pipelines: what was loaded, from which files, and how two versions differ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from runner.config.diagnostics import display_path
from runner.errors import PipelineInvalid, RunnerError
from runner.pipeline.model import Producer, Subscriber
from runner.pipeline.project_modules import ProjectModules
from runner.system import System

MTIME_MARGIN_S = 0.02
"""The clock of files is coarser than ours."""

MAX_NAMED = 3
"""How many files are named in the line about a reload."""

Part = tuple[str, str, str]
"""A producer or subscriber: pipeline, section and name."""


@dataclass(eq=False)
class Version:
    """Pipelines that were loaded, the modules that were imported for them, and hashes of what each part depends on.

    `rerun` are the finite producers that have changed and have not started again.
    """

    system: System
    modules: dict[str, ModuleType]
    parts: Mapping[Part, bytes]
    rerun: set[tuple[str, str]] = field(default_factory=set)

    def changed_producers(self, before: Version) -> set[tuple[str, str]]:
        """Return the producers, as pipeline and name, that were different in the version before."""
        both = self.parts.keys() & before.parts.keys()
        changed = (part for part in both if self.parts[part] != before.parts[part])
        return {(pipeline, name) for pipeline, section, name in changed if section == "producers"}

    def differences(self, before: Version | None) -> list[str]:
        """Return what was added, removed and changed since the version before, as parts of a line."""
        old: Mapping[Part, bytes] = before.parts if before is not None else {}
        new = self.parts
        changes = {
            "changed": [part for part in new if part in old and new[part] != old[part]],
            "added": [part for part in new if part not in old],
            "removed": [part for part in old if part not in new],
        }
        return [f"{word} {', '.join(name for *_, name in parts)}" for word, parts in changes.items() if parts]


class Loader:
    """Loads versions, and knows from which files.

    `load` reads the pipelines and imports their handlers, and `more_files` returns what else it reads.
    """

    def __init__(self, load: Callable[[], System], more_files: Callable[[], Iterable[Path]]) -> None:
        self._load = load
        self._more_files = more_files
        self._is_loading = self._is_interrupted = False
        self.modules = ProjectModules()
        self.files: dict[Path, bytes] = {}
        """The files of the last attempt, each with a hash of its content."""
        self._uncertain: set[Path] = set()
        """Those that may have been written between the attempt and the hash."""
        self.has_failed = False
        """Whether the last attempt to load has failed: then any new file may help."""

    def load(self) -> Version:
        """Load a version beside the one that runs, whose modules stay in place. Raises RunnerError.

        Raises KeyboardInterrupt when it is interrupted.
        """
        running, started = self.modules.replace({}), time.time()
        self.has_failed = True
        try:
            system = self._system()
            parts = list(self._parts(system))
            read = [file for loaded, _ in system.specs for file in loaded.files]
            read += [file for pipeline in system.pipelines for file in pipeline.schema_files]
            self._note_files(started, [*read, *(file for _, _, files in parts for file in files)])
            version = Version(system, {}, {part: self._hash_of(text, files) for part, text, files in parts})
            self.has_failed = False
        except RunnerError as error:
            problems = error.problems if isinstance(error, PipelineInvalid) else ()
            self._note_files(started, [*self.files, *(Path(problem.file) for problem in problems if problem.file)])
            raise
        finally:
            new = self.modules.replace(running)
        version.modules = new
        return version

    def interrupt(self) -> None:
        """End a `load` that is at work, also in an import. Called by a signal handler in the main thread."""
        self._is_interrupted = True
        if self._is_loading:
            raise KeyboardInterrupt

    def _system(self) -> System:
        self._is_loading = True
        try:
            return self._load()
        except RunnerError:
            if self._is_interrupted:  # a module may turn the interrupt into an error of its own
                raise KeyboardInterrupt from None
            raise
        finally:
            self._is_loading = False

    def changed_files(self, written: Collection[Path]) -> set[Path]:
        """Return the files that are not what they were at the last attempt. `written` are those that may differ."""
        lazy = self.modules.files() - self.files.keys()  # imported since
        changed = {file for file, before in self.files.items() if _hash(file) != before}
        return changed | (lazy | self._uncertain).intersection(written)

    def _note_files(self, started: float, files: Iterable[Path]) -> None:
        found = {Path(os.path.abspath(file)) for file in [*files, *self._more_files()]} | self.modules.files()
        found |= {Path(os.path.realpath(file)) for file in found}
        self.files = {file: _hash(file) for file in found}
        self._uncertain = {file for file in found if _is_newer(file, started)}

    def _parts(self, system: System) -> Iterator[tuple[Part, str, set[Path]]]:
        """Yield each producer and subscriber with its options and the files of its code, its resources included."""
        for pipeline, (_, spec) in zip(system.pipelines, system.specs, strict=True):
            found: list[tuple[str, Producer | Subscriber, dict[str, Any]]] = [
                *(("producers", item, spec.producers[item.name].model_dump()) for item in pipeline.producers),
                *(("subscribers", item, spec.subscribers[item.name].model_dump()) for item in pipeline.subscribers),
            ]
            for section, item, options in found:
                resources = [spec.resources[name] for name in (item.handler.resources if item.handler else ())]
                paths = [item.handler.path] if item.handler else []
                paths += [resource.factory for resource in resources]
                files = {file for path in paths for file in self.modules.sources(path.partition(":")[0])}
                text = repr([options, *(resource.model_dump() for resource in resources)])
                yield (pipeline.name, section, item.name), text, files

    def _hash_of(self, text: str, files: Iterable[Path]) -> bytes:
        hashed = blake2b(text.encode("utf-8", "surrogatepass"))
        for file in sorted(files):
            hashed.update(self.files[file])
        return hashed.digest()


def shown_files(files: Collection[Path]) -> str:
    """Return the names of some files, for a line."""
    names = sorted(display_path(str(file)) for file in files)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _hash(file: Path) -> bytes:
    """Return a hash of a file's content; that of nothing for a file that cannot be read."""
    try:
        return blake2b(file.read_bytes()).digest()
    except OSError:
        return b""


def _is_newer(file: Path, time_s: float) -> bool:
    try:
        return file.stat().st_mtime >= time_s - MTIME_MARGIN_S
    except OSError:
        return False
