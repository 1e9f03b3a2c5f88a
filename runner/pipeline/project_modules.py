"""The modules of a project in this process, and how to import them again after a change.

A module of a project is written in Python, is neither installed nor of the standard library nor of the runner, and was
imported after `ProjectModules` was made. A package without `__init__.py` counts as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from runner.pipeline import sys_path
from runner.pipeline.module_search import find_module, imported_names


class ProjectModules:
    """The modules of the project that are imported now.

    Python caches bytecode by the time of the source in seconds, and by its size: of two changes within a second, it
    could miss the second one. So this process and its children write no bytecode.
    """

    def __init__(self) -> None:
        self._before = frozenset(sys.modules)
        self._sources: dict[str, str] = {}
        self._runner = os.path.dirname(sys_path.PACKAGE_FILE) + os.sep
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

    def imported(self) -> dict[str, ModuleType]:
        """Return the modules by name."""
        candidates = [(name, module) for name, module in list(sys.modules.items()) if name not in self._before]
        return {name: module for name, module in candidates if self._is_of_project(module)}

    def files(self) -> set[Path]:
        """Return the source files of the modules."""
        return {Path(file) for module in self.imported().values() if (file := _file(module))}

    def replace(self, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
        """Put these modules in place of those that are imported, and return those. Without any, imports run again."""
        before = self.imported()
        self._sources.clear()
        for name in before:
            del sys.modules[name]
        sys.modules.update(modules)
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and parent not in modules:  # a package that is partly installed stays
                setattr(sys.modules[parent], child, module)
        return before

    def sources(self, name: str) -> set[Path]:
        """Return the source files of a module, and of the project's modules that it imports in turn, also later on."""
        files: dict[str, str] = {}
        todo = [name]
        while todo:
            name = todo.pop()
            if not name or name in files:
                continue
            files[name] = file = self._source(name)
            todo.append(name.rpartition(".")[0])  # its package
            if file:
                package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
                todo += imported_names(file, package)
        return {Path(file) for file in files.values() if file}

    def _source(self, name: str) -> str:
        """Return the source file of a module of the project, "" for another one. No code is run."""
        if name not in self._sources:
            module = sys.modules.get(name)
            if module is not None:
                file = _file(module) if name not in self._before else ""
            else:
                spec = dict(find_module(name, sys.path)).get(name)
                file = os.path.realpath(spec.origin) if spec is not None and spec.has_location and spec.origin else ""
            self._sources[name] = file if self._is_source(file) else ""
        return self._sources[name]

    def _is_of_project(self, module: ModuleType) -> bool:
        if file := _file(module):
            return self._is_source(file)  # most compiled modules can be imported only once
        places = [os.path.realpath(path) for path in vars(module).get("__path__", ())]
        return bool(places) and all(self._is_of_user(place) for place in places)

    def _is_source(self, file: str) -> bool:
        return file.endswith(".py") and self._is_of_user(file)

    def _is_of_user(self, place: str) -> bool:
        return not sys_path.is_installed(place) and not place.startswith(self._runner)


def _file(module: ModuleType) -> str:
    file = getattr(module, "__dict__", {}).get("__file__")  # not by getattr: a module may define __getattr__
    return os.path.realpath(file) if isinstance(file, str) else ""
