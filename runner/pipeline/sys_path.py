"""The import path of the process: the entries of Python, and the folders of pipelines between them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache

import runner

PACKAGE_FILE = os.path.realpath(runner.__file__)
"""The file of the runner itself."""

_STANDARD = os.path.realpath(os.path.dirname(os.__file__))
_ADDED: dict[str, None] = {}
"""The folders of pipelines that `extend` has put on the import path."""
_HOMES: dict[str, None] = {}
"""The folders of the files of pipelines: the paths of `python_path` start there."""


def extend(folders: Iterable[str], homes: Iterable[str] = ()) -> None:
    """Put folders on the import path, after the standard library and before installed packages.

    `homes` are the folders that the files of the pipelines are in.
    """
    _HOMES.update(dict.fromkeys(homes))
    rest, wanted = base(), list(dict.fromkeys(folders))
    earlier = [entry for entry in sys.path if entry in _ADDED and entry not in wanted]
    _ADDED.update(dict.fromkeys(folder for folder in wanted if folder not in rest))
    sys.path[:] = _with([*wanted, *earlier])
    importlib.invalidate_caches()


def python_path_to(target: str, searched: str) -> str:
    """Return how `python_path` names a folder, which was found from one that is searched."""
    home = next(iter(_HOMES)) if len(_HOMES) == 1 else searched
    return os.path.relpath(target, home)


def added() -> list[str]:
    """Return the folders of pipelines that are on the import path because of `extend`, in its order."""
    return [entry for entry in sys.path if entry in _ADDED]


def withdraw(folders: Iterable[str]) -> None:
    """Take folders of pipelines off the import path again."""
    for folder in folders:
        _HOMES.pop(folder, None)
        if _ADDED.pop(folder, "") is None and folder in sys.path:
            sys.path.remove(folder)


def isolated(folders: Sequence[str]) -> list[str]:
    """Return the import path of a process that runs only the pipeline with these folders."""
    return _with(folders)


def project_entries() -> list[str]:
    """Return the entries of the import path that are folders of projects: not installed, and not the runner's."""
    own = os.path.dirname(os.path.dirname(PACKAGE_FILE))
    prefixes = (sys.prefix + os.sep, sys.base_prefix + os.sep)
    entries = [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != own]
    return [entry for entry in entries if not is_installed(entry + os.sep) and not entry.startswith(prefixes)]


def base() -> list[str]:
    """Return the import path without the folders of pipelines."""
    return [entry for entry in sys.path if entry not in _ADDED]


def is_of_a_pipeline(file: str) -> bool:
    """Whether a file is in a folder of a pipeline, and is not installed."""
    return any(file.startswith(folder.rstrip(os.sep) + os.sep) for folder in _ADDED) and not is_installed(file)


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package or to the standard library."""
    return f"-packages{os.sep}" in file or is_standard(file)


def is_standard(file: str) -> bool:
    """Whether a file belongs to the standard library."""
    return file.startswith(_STANDARD + os.sep) and f"-packages{os.sep}" not in file


@cache
def required_modules() -> frozenset[str]:
    """Return the names of the installed modules that the runner needs, directly or indirectly."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, requires

    found: set[str] = set()
    todo = ["mqrunner"]
    while todo:
        name = todo.pop()
        try:
            requirements = requires(name) or []
        except PackageNotFoundError:  # an extra that is not installed, or a checkout
            continue
        found.add(_normal(name))
        for requirement in requirements:
            wanted = re.match(r"[\w.-]+", requirement)
            is_optional = "extra ==" in requirement and not re.search("extra == .(http|uvloop)", requirement)
            if wanted is not None and not is_optional and _normal(wanted[0]) not in found:
                todo.append(wanted[0])
    modules = packages_distributions().items()
    return frozenset(module for module, names in modules if found & {_normal(name) for name in names})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with(folders: Iterable[str]) -> list[str]:
    entries = base()
    standard = [
        index
        for index, entry in enumerate(entries)
        if os.path.realpath(entry).startswith(_STANDARD) and not entry.endswith("-packages")
    ]
    position = standard[-1] + 1 if standard else 0
    return [*entries[:position], *(folder for folder in folders if folder not in entries), *entries[position:]]
