"""Loads the pipelines under test: as `runner up` does, once for the same files and variables.

A process has one `sys.path` and one `sys.modules`. When the last test that runs has ended, the modules that came from
the folders of pipelines are parked: two projects with a module of the same name can be tested one after the other, and
the next test of the same pipelines gets the same modules, because importing one twice can do harm.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from runner.config import diagnostics
from runner.config.overlays import Overlay, Setting
from runner.errors import PipelineInvalid
from runner.pipeline import sys_path
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.importer import import_object
from runner.system import System, load

MAX_CACHED = 64
"""The most loads that are kept, the newest ones."""

INHERITED_VARIABLES = ("PATH", "HOME")

_Stamp = tuple[int, int]
_Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[Overlay, ...]]
_BROKER = Setting("broker=memory")

_lock = threading.RLock()


class InvalidUnderTest(PipelineInvalid):
    """The pipelines or the stand-ins are wrong. Its text is what `runner validate` prints."""

    def __init__(self, invalid: PipelineInvalid) -> None:
        super().__init__(invalid.problems)
        self.args = (f"{self.args[0]}\n\n{diagnostics.full(self.problems)}".rstrip(),)


class _Load(NamedTuple):
    """A system, the state of the files that it was read from, and the modules and folders that it uses."""

    system: System
    stamps: dict[str, _Stamp | None]
    modules: dict[str, ModuleType]
    folders: list[str]

    @property
    def is_fresh(self) -> bool:
        """Whether all files are unchanged, and all names in them mean the same: a test may patch a handler's module."""
        return (
            self.stamps == _stamps(self.stamps)
            and all(sys.modules.get(name, module) is module for name, module in self.modules.items())
            and all(_means(path, call) for path, call in self._calls())
        )

    def _calls(self) -> Iterator[tuple[str, Any]]:
        """Yield the functions that the files name, by their import paths."""
        for pipeline in self.system.pipelines:
            handlers = [each.handler for each in pipeline.subscribers]
            handlers += [each.handler for each in pipeline.producers if each.handler is not None]
            yield from ((each.path, each.call) for each in handlers if ":" in each.path)
            yield from ((each.path, getattr(each.factory, "func", None)) for each in pipeline.resources)


class _Imports:
    """The modules from the folders of pipelines that tests have imported."""

    def __init__(self) -> None:
        self._tests = 0
        self._names: set[str] = set()
        self._folders: list[str] = []
        self._parked: dict[str, tuple[str, ModuleType, _Stamp | None]] = {}
        """By the file: the name, the module, and the state of the file."""

    def begin(self) -> None:
        """Note what is there, if no other test runs."""
        if not self._tests:
            self._names = set(sys.modules)
            self._folders = sys_path.added()
        self._tests += 1

    def unpark(self, folders: Collection[str]) -> None:
        """Bring back what was imported from these folders. What was imported meanwhile, or has changed, stays away."""
        for file, (name, module, stamp) in list(self._parked.items()):
            if _root(name, file) in folders:
                del self._parked[file]
                if stamp == _stamp(file):
                    sys.modules.setdefault(name, module)

    def end(self) -> None:
        """Park what is new, if no other test runs."""
        self._tests -= 1
        if not self._tests:
            for name, module in self.new().items():
                file = _file(module)
                self._parked[file] = name, module, _stamp(file)
                del sys.modules[name]
            sys_path.withdraw([folder for folder in sys_path.added() if folder not in self._folders])

    def new(self) -> dict[str, ModuleType]:
        """Return the modules from the folders of pipelines that are here since the first of these tests began."""
        folders = sys_path.added()
        found = {name: sys.modules[name] for name in sys.modules.keys() - self._names}
        return {name: module for name, module in found.items() if _root(name, _file(module)) in folders}


_imports = _Imports()
_loads: dict[_Key, _Load] = {}
_folders: dict[tuple[str, ...], list[str]] = {}
"""The folders of pipelines that were loaded before, by their paths."""


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of pipelines under test: these variables, and few of the real ones."""
    return {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ} | dict(variables)


@contextmanager
def loaded(
    paths: Sequence[str | Path], env: Mapping[str, str], overlays: Sequence[str | Overlay] = ()
) -> Iterator[System]:
    """Give the pipelines at paths, with overlays. Their modules can be imported inside the block.

    The broker of the files is ignored, and need not even be right. Raises InvalidUnderTest.
    """
    changes = [Path(overlay) if isinstance(overlay, str) else overlay for overlay in overlays]
    with _lock:
        _imports.begin()
    try:
        with _lock:
            system = _load([Path(path) for path in paths], env, (*changes, _BROKER))
        yield system
    finally:
        with _lock:
            _imports.end()


def _load(paths: Sequence[Path], env: Mapping[str, str], overlays: tuple[Overlay, ...]) -> System:
    current = os.path.realpath(os.getcwd())
    places = (current, *map(str, paths))
    key = (places, tuple(sorted(env.items())), overlays)
    _imports.unpark(_folders.get(places) or [current, *(os.path.realpath(path.parent) for path in paths)])
    kept = _loads.pop(key, None)
    if kept is None or not kept.is_fresh:
        kept = _load_again(paths, env, overlays)
        _folders[places] = kept.folders
    else:
        sys_path.extend(kept.folders)
    if not any(path.is_dir() for path in paths) and not _reads_secrets(kept.system):
        _loads[key] = kept
    if len(_loads) > MAX_CACHED:
        del _loads[next(iter(_loads))]
    return kept.system


def _load_again(paths: Sequence[Path], env: Mapping[str, str], overlays: Sequence[Overlay]) -> _Load:
    try:
        system = load(paths, env, overlays, broker="memory", is_test=True)
    except PipelineInvalid as invalid:
        raise InvalidUnderTest(invalid) from None
    modules, folders = _imports.new(), sys_path.added()
    files = {str(file) for pipeline_file, _ in system.specs for file in pipeline_file.files}
    files |= {_file(module) for module in modules.values()}
    return _Load(system, _stamps(files), modules, folders)


def _means(path: str, call: Any) -> bool:
    try:
        return bool(import_object(path) == call)
    except ImportProblem:
        return False


def _reads_secrets(system: System) -> bool:
    """Whether values come from other files, which may change: `${file:…}`."""
    return any("${file:" in file.read_text("utf-8") for pipeline, _ in system.specs for file in pipeline.files)


def _stamps(files: Iterable[str]) -> dict[str, _Stamp | None]:
    return {file: _stamp(file) for file in files}


def _stamp(file: str) -> _Stamp | None:
    """Return when a file was changed, and its size; None if it is gone."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _file(module: ModuleType) -> str:
    """Return the file of a module, or the folder of a package without `__init__.py`; "" if it is built in."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")


def _root(name: str, file: str) -> str:
    """Return the folder on the import path that a module comes from; "" if it is installed, or a part of the runner."""
    if not file or sys_path.is_installed(file) or name.partition(".")[0] == "runner":
        return ""
    is_package = os.path.basename(file).startswith("__init__.") or os.path.isdir(file)
    here = os.path.dirname(file) if not os.path.isdir(file) else file
    for _ in range(name.count(".") + is_package):
        here = os.path.dirname(here)
    return here
