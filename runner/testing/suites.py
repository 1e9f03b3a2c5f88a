"""Loads test files with their pipelines, and compares the names in them with those that the pipelines have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.document import KeyPath, MappingNode, Node, ScalarNode, dotted_path, text_of, walk_nodes
from runner.config.loader import PipelineFile
from runner.config.messages import did_you_mean, quoted
from runner.config.overlays import Overlay
from runner.config.suite_loader import SuiteFile, read_suite
from runner.config.suite_spec import CaseSpec, SuiteSpec
from runner.config.validation import document_data
from runner.errors import PipelineInvalid, Problem, has_errors
from runner.pipeline.import_report import ImportReport
from runner.pipeline.importer import import_callable, import_exception
from runner.pipeline.module_search import ModuleSearch, module_searches
from runner.system import System
from runner.testing.loading import environment, loaded
from runner.testing.replacement import Replacement
from runner.testing.stand_ins import StandIns

_REPLACE = ("tests", "*", "replace")
_EXPECT = ("tests", "*", "expect")

_NAMES: Mapping[KeyPath, str] = {
    ("tests", "*", "publish", "#", "to"): "queue or event",
    ("tests", "*", "only"): "subscriber or producer",
    ("tests", "*", "only", "#"): "subscriber or producer",
    (*_EXPECT, "published", "#", "to"): "queue or event",
    (*_EXPECT, "answers", "#", "to"): "queue or event",
    (*_EXPECT, "dead", "#", "queue"): "queue",
    (*_EXPECT, "dead", "#", "subscriber"): "subscriber",
}
"""The values that are names, and what they name."""

_KEYS: Mapping[KeyPath, str] = {
    (*_EXPECT, "handled"): "subscriber",
    (*_EXPECT, "retried"): "subscriber",
    (*_EXPECT, "duplicates"): "subscriber",
    (*_EXPECT, "unheard"): "event",
    _REPLACE: "subscriber or producer",
    (*_REPLACE, "resources"): "resource",
}
"""The maps whose keys are names, and what they name."""

_IMPORTS: Mapping[KeyPath, Callable[[str], object]] = {
    (*_REPLACE, "*"): import_callable,
    (*_REPLACE, "*", "handler"): import_callable,
    (*_REPLACE, "*", "raises"): import_exception,
    (*_REPLACE, "resources", "*"): import_callable,
}
"""The values that are import paths, and how they are imported."""


@dataclass(frozen=True)
class Suite:
    """A test file without mistakes, and the pipelines that it tests."""

    file: PipelineFile
    spec: SuiteSpec
    system: System
    overlays: tuple[Overlay, ...] = ()

    @property
    def path(self) -> Path:
        """The path of the test file."""
        return self.file.path

    def line(self, name: str) -> int:
        """Return the line of a test's name."""
        return 0 if self.file.document is None else self.file.document.span(("tests", name), "key").line


def load_suite(path: Path, overlays: Sequence[Overlay] = ()) -> Suite:
    """Read a test file and its pipelines, and import their handlers. Raises PipelineInvalid with every problem.

    Overlays change the pipelines.
    """
    read = read_suite(path)
    problems = list(read.file.problems)
    system: System | None = None
    paths, env = _pipelines(read.file)
    try:
        with loaded(paths, environment(env), overlays) if paths else nullcontext() as system:
            if system is not None:
                problems += _problems(read, system)
    except PipelineInvalid as invalid:
        problems += (_placed(read.file, problem) for problem in invalid.problems)
    if read.spec is None or system is None or has_errors(problems):
        raise PipelineInvalid(problems)
    return Suite(read.file, read.spec, system, tuple(overlays))


def replacements(case: CaseSpec) -> dict[str, Any]:
    """Return what the engine puts in place of handlers and resources."""
    found: dict[str, Any] = {"resources": case.replace.resources} if case.replace.resources else {}
    for name, spec in (case.replace.model_extra or {}).items():
        found[name] = Replacement(**spec.model_dump(exclude_none=True))
    return found


def _pipelines(file: PipelineFile) -> tuple[list[Path], dict[str, str]]:
    """Return the paths of the pipelines under test and the variables for them, as far as they are right."""
    data = document_data(file.document) if file.document is not None else {}
    names, variables = data.get("pipelines"), data.get("env")
    names = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    given = variables.items() if isinstance(variables, dict) else ()
    paths = [file.path.parent / name for name in names if isinstance(name, str)]
    return paths, {name: value for name, value in given if isinstance(value, str)}


def _problems(read: SuiteFile, system: System) -> Iterator[Problem]:
    """Yield the problems with names and import paths, and with stand-ins that do not fit, if there are no others."""
    reported = {problem.path for problem in read.file.problems}
    found = [each for each in _unknown_names(read.file, system) if each.path not in reported]
    found += _bad_imports(read.file, system, reported)
    yield from found
    for name, case in read.spec.tests.items() if read.spec is not None and not found else ():
        try:
            StandIns(system, replacements(case))
        except PipelineInvalid as invalid:
            for problem in invalid.problems:
                what = problem.path.removeprefix("replace.")
                below = ("resources", what.removeprefix("resources.")) if what.startswith("resources.") else (what,)
                at = ("tests", name, "replace", *below)
                yield read.file.problem(problem.code, at, problem.message, problem.help)


def _placed(file: PipelineFile, problem: Problem) -> Problem:
    """Return a problem of a pipeline, at the name of that pipeline if it has no place of its own."""
    for path, node in _nodes(file, "pipelines") if not problem.line else ():
        if isinstance(node, ScalarNode) and problem.file == str(file.path.parent / str(node.value)):
            return file.problem(problem.code, path, problem.message, problem.help)
    return problem


def _unknown_names(file: PipelineFile, system: System) -> Iterator[Problem]:
    """Yield a problem for each name that the pipelines do not have."""
    known = _known_names(system)
    for path, node in _nodes(file, "tests"):
        shape = _shape(path)
        if isinstance(node, MappingNode) and shape in _KEYS:
            found = [((*path, key), key) for key in node.nodes if key != "resources" or shape != _REPLACE]
        elif isinstance(node, ScalarNode) and isinstance(node.value, str) and shape in _NAMES:
            found = [(path, node.value)]
        else:
            continue
        kind = _KEYS.get(shape) or _NAMES[shape]
        for at, name in found:
            if name not in known[kind]:
                words = [*known[kind], *(["resources"] if shape == _REPLACE else [])]
                message, help_ = f'no {kind} is called "{name}"', did_you_mean(name, words)
                if shape == _REPLACE and name in known["resource"]:
                    stand_in = text_of(node.nodes[name][1]) if isinstance(node, MappingNode) else ""
                    help_ = f'"{name}" is a resource: write `resources: {{{name}: {quoted(stand_in or "…")}}}`'
                yield file.problem("unknown-name", at, message, help_, on="key" if shape in _KEYS else "value")


def _known_names(system: System) -> dict[str, Collection[str]]:
    """Return the names that the pipelines have, by what they name.

    A subscriber of a name that several pipelines have may also be called `pipeline.name`.
    """
    subscribers = [(pipeline.name, each) for pipeline in system.pipelines for each in pipeline.subscribers]
    count = Counter(each.name for _, each in subscribers)
    destinations = [each for pipeline in system.pipelines for each in pipeline.destinations.values()]
    names = dict.fromkeys(each.name for _, each in subscribers)
    names |= dict.fromkeys(f"{pipeline}.{each.name}" for pipeline, each in subscribers if count[each.name] > 1)
    queues = dict.fromkeys(each.name for each in destinations if not each.is_event)
    return {
        "subscriber": names,
        "subscriber or producer": dict.fromkeys(each.name for each in system.items()) | names,
        "queue": queues | dict.fromkeys(each.queue for _, each in subscribers),
        "queue or event": dict.fromkeys(each.name for each in destinations),
        "event": dict.fromkeys(each.name for each in destinations if each.is_event),
        "resource": dict.fromkeys(each.name for pipeline in system.pipelines for each in pipeline.resources),
    }


def _bad_imports(file: PipelineFile, system: System, wrong: Collection[str]) -> list[Problem]:
    """Return a problem for each import path of a replacement that names nothing, but for values that are `wrong`."""
    (modules,) = module_searches([file])
    folders = (folder for loaded, _ in system.specs for folder in ModuleSearch(loaded).folders)
    modules.folders = list(dict.fromkeys([*folders, *modules.folders]))
    report = ImportReport(file, modules)
    for path, node in _nodes(file, "tests"):
        work = _IMPORTS.get(_shape(path))
        if work is None or not isinstance(node, ScalarNode) or dotted_path(path) in wrong:
            continue
        if isinstance(node.value, str):
            report.attempt(path, node.value, work)
    return report.problems()


def _nodes(file: PipelineFile, key: str) -> Iterator[tuple[KeyPath, Node]]:
    """Yield the nodes below a key of a file, with their paths."""
    node = None if file.document is None else file.document.node((key,))
    return walk_nodes(node, (key,)) if node is not None else iter(())


def _shape(path: KeyPath) -> KeyPath:
    """Return a path with `*` in place of the names in it, and `#` in place of the numbers."""
    names = {1, 4 if path[3:4] == ("resources",) else 3} if path[2:3] == ("replace",) else {1}
    return tuple("#" if isinstance(part, int) else "*" if index in names else part for index, part in enumerate(path))
