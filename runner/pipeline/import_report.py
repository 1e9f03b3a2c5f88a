"""What is wrong with the import paths of one pipeline, each module once, with everything that names it; and with the
values that what they name is to get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from runner.config.document import KeyPath, dotted_path
from runner.config.loader import PipelineFile
from runner.errors import Problem, Severity
from runner.pipeline.handler_arguments import ArgumentMismatch
from runner.pipeline.importer import ImportProblem
from runner.pipeline.module_search import HIDDEN, ModuleSearch
from runner.pipeline.signature import BadArguments

T = TypeVar("T")
R = TypeVar("R")

MAX_NAMED = 5
"""How many of the items that name a wrong module are listed."""


class ImportReport:
    """Collects problems. A module that fails is imported once, however many items name it."""

    def __init__(self, loaded: PipelineFile, modules: ModuleSearch) -> None:
        self._loaded = loaded
        self._modules = modules
        self._failed: dict[str, ImportProblem] = {}
        self._first: dict[tuple[str, str], Problem] = {}
        self._others: dict[tuple[str, str], list[str]] = {}
        self._single: list[Problem] = []
        for module, blame in modules.reserved().items():
            self._failed[module] = blame
            self._note_module((), module, blame)

    def attempt(self, path: KeyPath, target: T, work: Callable[[T], R]) -> R | None:
        """Do some work on what a path of the file names; None, and a problem noted there, where it is to blame."""
        module, colon, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
        wrong: list[ImportProblem] = []
        if colon:
            failed = self._failed.get(module) or self._failed.get(module.partition(".")[0])
            wrong = [failed] if failed is not None else self._modules.check(module)
        for blame in wrong:
            self._note_module(path, module, blame)
        if any(blame.code != HIDDEN for blame in wrong):
            return None
        try:
            return work(target)
        except ImportProblem as blame:
            if colon and not blame.is_attribute and blame.code.startswith("module-"):
                self._failed[module] = blame
                self._note_module(path, module, blame)
            else:
                offset, length = (len(module) + 1, len(attribute)) if blame.is_attribute else (0, len(module))
                problem = self._loaded.problem(
                    blame.code, path, str(blame), blame.hint, offset=offset if colon else 0, length=length or None
                )
                self._single.append(problem)
        except BadArguments as bad:
            self._single += [
                self._mismatch((*path[:-1], "with", *item.where), bad.target, item) for item in bad.mismatches
            ]
        return None

    def problems(self) -> list[Problem]:
        """Return what was noted."""
        return [*self._single, *(replace(first, help=self._help(key)) for key, first in self._first.items())]

    def _mismatch(self, path: KeyPath, target: str, mismatch: ArgumentMismatch) -> Problem:
        """Return the problem of a value in `with:` that does not fit."""
        written = self._loaded.interpolated.items()
        variables = {name for key, names in written if key[: len(path)] == path for name in names}
        return self._loaded.problem("bad-argument", path, *mismatch.words(target, sorted(variables)))

    def _note_module(self, path: KeyPath, module: str, blame: ImportProblem) -> None:
        key = blame.code, str(blame)
        if key in self._first:
            self._others[key].append(dotted_path(path[:2]))
            return
        severity: Severity = "warning" if blame.code == HIDDEN else "error"
        self._first[key] = self._loaded.problem(
            blame.code, path, str(blame), blame.hint, severity=severity, length=len(module)
        )
        self._others[key] = []

    def _help(self, key: tuple[str, str]) -> str:
        help_, others = self._first[key].help, list(dict.fromkeys(self._others[key]))
        if not others:
            return help_
        more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        return f"{help_}; also named by {', '.join(others[:MAX_NAMED])}{more}"
