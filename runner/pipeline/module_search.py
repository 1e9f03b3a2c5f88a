"""Finds the files of the modules of a pipeline, by the same rule for `validate`, with and without imports, and `up`.

Modules are searched in the `python_path` of the pipeline, in the folder of its file, and in the current folder, in this
order: after the standard library and before installed packages. A process imports each name once, for all of its
pipelines. So a module is an error if the import gives another file than it would for the pipeline alone, or if one of
the folders of the pipeline has a second module of that name.
"""

from __future__ import annotations

import ast
import functools
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from runner.config.diagnostics import display_path
from runner.config.loader import PipelineFile
from runner.pipeline import sys_path
from runner.pipeline.import_problems import ImportProblem, missing_module, modules_in

CONFLICT, HIDDEN, RESERVED = "module-conflict", "hidden-module", "reserved-module"
_APART = "give one of the two modules another name, or run the pipelines in separate processes"
_FOLDERS = "give one of the two modules another name, or change `python_path`"
_ELSEWHERE = "give one of the two modules another name, or run the command in another folder"


def find_module(
    name: str, entries: Sequence[str], *, in_folders_only: bool = False
) -> Iterator[tuple[str, ModuleSpec | None]]:
    """Yield the packages of a module and the module, each with its spec from these folders. No code is run.

    The iteration ends at the first that is not found. With `in_folders_only`, other finders are not used, such as those
    of editable installations.
    """
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        partial = ".".join(parts[:count])
        is_built_in = partial in sys.builtin_module_names and not in_folders_only
        spec = ModuleSpec(partial, None) if is_built_in else _find(partial, entries)
        if spec is None and count == 1 and not in_folders_only:
            spec = _found_otherwise(partial)
        yield partial, spec
        if spec is None:
            return
        entries = list(spec.submodule_search_locations or [])


def module_searches(pipelines: Sequence[PipelineFile]) -> list[ModuleSearch]:
    """Put the folders of pipelines that share a process on the import path. Return the searches of their modules."""
    searches = [ModuleSearch(loaded) for loaded in pipelines]
    folders = [folder for search in searches for folder in search.folders]
    sys_path.extend([*folders, os.path.realpath(os.getcwd())], [search.home for search in searches])
    ambiguous = _ambiguous(searches)
    for search in searches:
        search.ambiguous = ambiguous
    return searches


class ModuleSearch:
    """Finds the modules of one pipeline. `ambiguous` are the names of modules that several folders have."""

    def __init__(self, loaded: PipelineFile) -> None:
        spec = loaded.spec or loaded.recovered
        folder = loaded.path.parent
        names = [folder / name for name in spec.python_path] if spec is not None else []
        self.home = os.path.realpath(folder)
        self.folders = list(dict.fromkeys(os.path.realpath(name) for name in [*map(str, names), self.home]))
        self.current = os.path.realpath(os.getcwd())
        self.ambiguous: set[str] = set()
        self._checked: dict[str, list[ImportProblem]] = {}

    @property
    def search_folders(self) -> list[str]:
        """All folders, in the order in which they are searched."""
        return list(dict.fromkeys([*self.folders, self.current]))

    def reserved(self) -> dict[str, ImportProblem]:
        """Return, by name, problems of modules that would hide the runner or a package that it needs."""
        found: dict[str, ImportProblem] = {}
        for place in self.search_folders:
            for name in sorted(modules_in([place])):
                theirs = _file(_find(name, [place]))
                ours = sys_path.PACKAGE_FILE if name == "runner" else _file(_find(name, sys_path.base()))
                if theirs and ours and theirs != ours and (name == "runner" or name in sys_path.required_modules()):
                    words = "is the runner itself" if name == "runner" else "is a package that the runner needs"
                    message = f'module "{name}" {words}, and {display_path(theirs)} would hide it'
                    found.setdefault(name, ImportProblem(RESERVED, message, _rename(_find(name, [place]))))
        return found

    def check(self, name: str) -> list[ImportProblem]:
        """Return the problems with the file of a module, and of the modules that it imports in turn.

        Those with the code `hidden-module` are warnings. Modules with a reserved name are not checked.
        """
        if name not in self._checked:
            self._checked[name] = list(self._check(name))
        return self._checked[name]

    def _check(self, name: str) -> Iterator[ImportProblem]:
        yield from self._verify(name, "")
        if self.ambiguous:
            for other, importer in self._reached(name).items():
                if other.partition(".")[0] in self.ambiguous and importer:
                    yield from self._verify(other, f", which {display_path(importer)} imports,")

    def _verify(self, name: str, imported: str) -> Iterator[ImportProblem]:
        """Compare the file of a module for the pipeline alone with that in this process, and with hidden files."""
        alone = sys_path.isolated(self.search_folders)
        found = dict(find_module(name, alone))
        top = name.partition(".")[0]
        if found[top] is None:
            if not _is_loaded_elsewhere(top):
                yield missing_module(name, top, alone)
            return
        for partial, taken in _taken(name):
            spec = found.get(partial)
            if spec is not None and _file(spec) != taken:
                other = display_path(taken) if taken else "another folder"
                message = f'module "{partial}"{imported} is {_where(spec)} for this pipeline'
                message += f", but {other} is imported by that name in the same process"
                yield ImportProblem(
                    CONFLICT, message, _APART if sys_path.is_of_a_pipeline(taken) else _rename(found[top])
                )
                return
        yield from self._hidden(name, found, imported)

    def _hidden(self, name: str, found: dict[str, ModuleSpec | None], imported: str) -> Iterator[ImportProblem]:
        """Yield the problem of a module of the same name in a later folder."""
        own = next(spec for spec in reversed(found.values()) if spec is not None)
        for place in self.search_folders:
            others = dict(find_module(name, [place], in_folders_only=True))
            other = _file(others.get(name))
            if not other or other == _file(found.get(name)):
                continue
            message = f'module "{name}"{imported} is {_where(own)}, which hides {display_path(other)}'
            is_ours = _lies_in(_file(own), self.folders)
            is_standard = not is_ours and bool(imported)  # the module may mean it
            if is_standard or (place == self.current and place not in self.folders):
                yield ImportProblem(HIDDEN, message, _ELSEWHERE if is_ours else _rename(others[name.partition(".")[0]]))
            else:
                yield ImportProblem(CONFLICT, message, _FOLDERS if is_ours else _rename(others[name.partition(".")[0]]))
            return

    def _reached(self, name: str) -> dict[str, str]:
        """Return the modules that a module imports in turn, also in functions, each with the importing file.

        Only the sources in the pipeline's own folders are read.
        """
        alone = sys_path.isolated(self.search_folders)
        seen: dict[str, str] = {}
        todo = [(name, "")]
        while todo:
            wanted, importer = todo.pop()
            for partial, spec in find_module(wanted, alone):
                if spec is None or partial in seen:
                    continue
                seen[partial] = importer
                file = spec.origin or ""
                if file.endswith(".py") and _lies_in(file, self.search_folders) and not sys_path.is_installed(file):
                    package = partial if spec.submodule_search_locations is not None else partial.rpartition(".")[0]
                    todo += [(imported, file) for imported in imported_names(file, package)]
        return seen


def _rename(spec: ModuleSpec | None) -> str:
    """Return the help for a module or package at the top of a folder whose name is taken."""
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    renamed = f"{display_path(folders[0])}/" if folders else display_path(_file(spec))
    return f"rename {renamed}, and write its new name where it is meant"


def _find(name: str, entries: Sequence[str]) -> ModuleSpec | None:
    """Return the spec of a module, whose package has been found, without running code."""
    portions: list[str] = []
    for entry in entries:
        finder = pkgutil.get_importer(entry or os.getcwd())
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec is not None else []
    if portions:
        package = ModuleSpec(name, None, is_package=True)
        package.submodule_search_locations = portions
        return package
    return None


def _found_otherwise(name: str) -> ModuleSpec | None:
    finders = (finder for finder in sys.meta_path if finder is not PathFinder)
    return next(filter(None, (finder.find_spec(name, None) for finder in finders)), None)


def _file(spec: ModuleSpec | None) -> str:
    """Return the file of a module, "" if it is built in, or a package without `__init__.py`."""
    return os.path.realpath(spec.origin) if spec is not None and spec.loader is not None and spec.origin else ""


def _where(spec: ModuleSpec) -> str:
    file = _file(spec)
    if sys_path.is_standard(file) or not (file or spec.submodule_search_locations):
        return "Python's own"
    return display_path(file or next(iter(spec.submodule_search_locations or [])))


def _taken(name: str) -> Iterator[tuple[str, str]]:
    """Yield the packages of a module and the module, each with the file that this process imports."""
    for partial, spec in find_module(name, sys.path):
        module = sys.modules.get(partial)
        if module is None and spec is None:
            return
        file = getattr(module, "__file__", None)
        yield partial, _file(spec) if module is None else os.path.realpath(file) if file else ""


def _is_loaded_elsewhere(name: str) -> bool:
    """Whether a module has been imported, and not from the folder of another pipeline."""
    return name in sys.modules and not sys_path.is_of_a_pipeline(_loaded_file(name))


def _ambiguous(searches: Sequence[ModuleSearch]) -> set[str]:
    """Return the names of modules that several folders have, or that are imported or a part of Python as well."""
    places = dict.fromkeys(place for search in searches for place in search.search_folders)
    seen: set[str] = set()
    found: set[str] = set()
    for place in places:
        names = set(modules_in([place]))
        found |= names & (seen | sys.stdlib_module_names)
        seen |= names
    return found | {name for name in seen if name in sys.modules and not _lies_in(_loaded_file(name), list(places))}


def _loaded_file(name: str) -> str:
    return os.path.realpath(getattr(sys.modules[name], "__file__", None) or "/")


def _lies_in(file: str, folders: Sequence[str]) -> bool:
    return any(file.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def imported_names(file: str, package: str) -> Sequence[str]:
    """Return the names that a source file imports. Those of a `from` may be attributes."""
    try:
        return _imported_names(file, package, os.stat(file).st_mtime_ns)
    except (SyntaxError, ValueError, OSError, MemoryError, RecursionError, SystemError):  # the import reports it
        return ()


@functools.lru_cache(maxsize=1024)  # many modules of a project reach the same ones
def _imported_names(file: str, package: str, changed_at_ns: int) -> Sequence[str]:
    names = []
    for node in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*"]
            names += [base] if base else []
    return names
