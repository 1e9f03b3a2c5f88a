"""Finds and reads test files: each becomes a spec, or a list of all problems with their positions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.config import limits
from runner.config.loader import PipelineFile, in_files, is_pipeline_file, is_test_file, unreadable, yaml_files
from runner.config.suite_spec import SuiteSpec
from runner.config.validation import document_data, validate_as
from runner.config.yaml_parser import parse_yaml, read_text
from runner.errors import PipelineInvalid, Problem


@dataclass(frozen=True)
class SuiteFile:
    """A test file that has been read. `spec` is None if and only if there are problems."""

    file: PipelineFile
    """The document and its problems; its own spec is None."""
    spec: SuiteSpec | None


def read_suite(path: Path) -> SuiteFile:
    """Read a test file. `${…}` is not replaced in it: variables are for the pipelines under test."""
    if not is_test_file(path) and is_pipeline_file(path):
        return SuiteFile(unreadable(path, [_pipeline_file(path)], [path]), None)
    try:
        document, problems = parse_yaml(read_text(path), path, max_nodes=limits.MAX_SUITE_NODES)
    except PipelineInvalid as error:
        return SuiteFile(unreadable(path, error.problems, [path]), None)
    spec, found = validate_as(SuiteSpec, document, document_data(document))
    problems = in_files([*problems, *found], [path])
    file = PipelineFile(path, path.name, None, problems, document, files=(path,))
    return SuiteFile(file, None if problems else spec)


def _pipeline_file(path: Path) -> Problem:
    tests = tests_beside(path)
    help_ = f"write {' '.join(tests[:3])} in place of it" if tests else "`runner init` writes tests, in *.test.yaml"
    return Problem(code="no-tests", message="this is a pipeline, not a file of tests", help=help_, line=1, column=1)


def tests_beside(path: Path) -> list[str]:
    """Return the test files in the folder of a file: those of that name, if there are any."""
    found = [str(file) for file in sorted(path.parent.glob("*.y*ml")) if is_test_file(file)]
    return [file for file in found if Path(file).name.startswith(f"{path.stem}.")] or found


def find_suites(paths: Iterable[Path]) -> list[Path]:
    """Return the test files in paths, each once: files, and every `*.test.yaml` in or below a folder.

    Raises PipelineInvalid for a path that does not exist and for a folder without tests.
    """
    found: dict[Path, None] = {}
    problems: list[Problem] = []
    for path in paths:
        files = [file for file in yaml_files(path) if is_test_file(file)] if os.path.isdir(path) else [path]
        if not files:
            help_ = 'a test file is called "*.test.yaml"; `runner init` writes one'
            problems.append(
                Problem(code="no-tests", message="no test file below this folder", help=help_, file=str(path))
            )
        found.update(dict.fromkeys(files))
    if problems:
        raise PipelineInvalid(problems)
    return list(found)
