"""Collects the problems of the import paths of a pipeline and of their arguments. Each module is reported once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from runner.config.document import KeyPath, dotted_path
from runner.config.loader import PipelineFile
from runner.config.recovery import UNKNOWN
from runner.errors import Problem, Severity
from runner.pipeline.handler_arguments import ArgumentMismatch
from runner.pipeline.import_problems import EFFECT, ImportProblem, Place
from runner.pipeline.importer import EFFECTS
from runner.pipeline.module_search import HIDDEN, ModuleSearch
from runner.pipeline.signature import BadArguments

T = TypeVar("T")
R = TypeVar("R")

_FOLDER = re.compile(r"`python_path: \[(.+)\]`")
MAX_NAMED = 5
"""The maximum number of items that are listed for a wrong module."""


class ImportReport:
    """Collects problems. A module that fails is imported once, even if several items name it."""

    def __init__(self, loaded: PipelineFile, modules: ModuleSearch) -> None:
        self._loaded = loaded
        self._modules = modules
        self._failed: dict[str, ImportProblem] = {}
        self._first: dict[tuple[str, str], Problem] = {}
        self._others: dict[tuple[str, str], list[str]] = {}
        self._single: list[Problem] = []
        self._reserved = modules.reserved()
        self._failed |= self._reserved
        self.is_second_look = False
        """Whether `look_again` checks."""

    @property
    def has_failures(self) -> bool:
        """Whether the import of a module failed."""
        return self._failed.keys() > self._reserved.keys()

    def look_again(self, check: Callable[[], None]) -> None:
        """Check only what names a module whose import failed, in its source, also where the help says that it is."""
        self.is_second_look = True
        named = (_FOLDER.search(error.hint) for error in self._failed.values())
        folders = [str((self._loaded.path.parent / found[1]).absolute()) for found in named if found]
        sys.path += folders
        try:
            check()
        finally:
            for folder in folders:
                sys.path.remove(folder)

    def attempt(self, path: KeyPath, target: T, work: Callable[[T], R]) -> R | None:
        """Do some work on what a path of the file names; None, and a problem noted there, where it is to error."""
        if target == UNKNOWN:
            return None
        module, colon, _ = target.partition(":") if isinstance(target, str) else ("", "", "")
        if self.is_second_look:
            if module in self._failed.keys() - self._reserved.keys():
                self._look(path, target, work)
            return None
        wrong: list[ImportProblem] = []
        if colon:
            failed = self._failed.get(module) or self._failed.get(module.partition(".")[0])
            wrong = [failed] if failed is not None else self._modules.check(module)
        for error in wrong:
            self._note_module(path, module, error)
            if error.code != HIDDEN:
                self._failed[module] = error
        if any(error.code != HIDDEN for error in wrong):
            return None
        try:
            return work(target)
        except ImportProblem as error:
            if colon and not error.is_attribute and error.code.startswith("module-"):
                self._failed[module] = error
                self._note_module(path, module, error)
            else:
                for each in (error, *error.also):
                    self.note(path, target, each)
                if isinstance(error.bad_arguments, BadArguments):
                    self._note_arguments(path, error.bad_arguments)
        except BadArguments as bad:
            self._note_arguments(path, bad)
        finally:
            for warning in EFFECTS.pop(module, ()):
                self._note_module(path, module, warning)
        return None

    def _look(self, path: KeyPath, target: T, work: Callable[[T], R]) -> None:
        """Note what is wrong with a name of a module whose import failed, whatever mends the import."""
        try:
            work(target)
        except ImportProblem as error:
            for each in (error, *error.also):
                # A name may be made by what fails, so only one that is near to another is certain to be wrong.
                is_certain = each.code != "attribute-not-found" or each.hint.startswith("did you mean")
                if is_certain and not each.code.startswith("module-"):
                    self.note(path, target, each)
        except BadArguments as bad:
            self._note_arguments(path, bad)

    def _note_arguments(self, path: KeyPath, bad: BadArguments) -> None:
        self._single += [self._mismatch((*path[:-1], "with", *item.where), bad.target, item) for item in bad.mismatches]

    def note(self, path: KeyPath, target: object, error: ImportProblem, severity: Severity = "error") -> None:
        """Note a problem of what a path of the file names, where it is to be corrected."""
        module, colon, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
        text, (offset, length) = (error.code, path, str(error), error.hint), (0, len(module))
        if error.is_attribute:
            offset, length = len(module) + 1 if colon else 0, len(attribute)
        problem = self._loaded.problem(*text, severity=severity, offset=offset, length=length or None)
        if error.argument is not None:
            problem = self._loaded.problem(text[0], (*path[:-1], "with", error.argument), *text[2:], on="key")
        place = error.place
        if error.parameter is not None and isinstance(target, str):
            from runner.pipeline.static_checks import definition_place

            place = definition_place(target, error.parameter)
        self._single.append(_in_python(problem, place))

    def problems(self) -> list[Problem]:
        """Return all problems."""
        for module, error in self._reserved.items():
            if (error.code, str(error)) not in self._first:  # nothing names it, and it hides the other all the same
                self._note_module((), module, error)
        return [*self._single, *(replace(first, message=self._message(key)) for key, first in self._first.items())]

    def _mismatch(self, path: KeyPath, target: str, mismatch: ArgumentMismatch) -> Problem:
        """Return the problem of a value in `with:` that does not fit."""
        written = self._loaded.interpolated.items()
        variables = {name for key, names in written if key[: len(path)] == path for name in names}
        return self._loaded.problem("bad-argument", path, *mismatch.words(target, sorted(variables)))

    def _note_module(self, path: KeyPath, module: str, error: ImportProblem) -> None:
        key = error.code, error.hint if _FOLDER.search(error.hint) else str(error)
        if error.place is not None:
            key = error.code, f"{error.place.file}:{error.place.line}"  # the same cause for all that import it
        if key in self._first:
            self._others[key].append(dotted_path(path[:2]))
            return
        severity: Severity = "warning" if error.code in (HIDDEN, EFFECT) else "error"
        problem = self._loaded.problem(error.code, path, str(error), error.hint, severity=severity, length=len(module))
        self._first[key] = _in_python(problem, error.place)
        self._others[key] = []

    def _message(self, key: tuple[str, str]) -> str:
        message, others = self._first[key].message, list(dict.fromkeys(self._others[key]))
        if not others:
            return message
        more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        return f"{message} (also named by {', '.join(others[:MAX_NAMED])}{more})"


def _in_python(problem: Problem, place: Place | None) -> Problem:
    """Return a problem with its place in a Python file, if it has one."""
    return problem if place is None else replace(problem, **place._asdict())
