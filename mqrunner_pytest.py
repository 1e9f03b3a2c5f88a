"""Collects `*.test.yaml` for pytest: each test in such a file is an item.

pytest imports this module at each of its starts, in every project where the distribution is installed. So it imports
nothing of the package `runner` before there is such a file: a project may have a module of that name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mqrunner import hidden_by

if TYPE_CHECKING:
    from runner.testing.runs import CaseResult
    from runner.testing.suites import Suite


IMPORTS_TESTING = re.compile(rb"^(from|import) runner\.testing\b", re.MULTILINE)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Replace a module that would import `runner.testing`, and get a file of the user's instead, by an error."""
    if (text := _hidden_from(module_path)) and IMPORTS_TESTING.search(module_path.read_bytes()):
        return HiddenRunner.from_parent(parent, path=module_path, text=text)
    return None


def _hidden_from(file: Path) -> str:
    """Return the error if a `runner` of the user's comes first on the import path of a file; empty if none does."""
    return (
        ""
        if "runner.errors" in sys.modules
        else hidden_by(PathFinder.find_spec("runner", [str(file.parent), *sys.path]))
    )


class HiddenRunner(pytest.File):
    """A file that cannot be collected, because a module of the user's hides the package."""

    def __init__(self, *, text: str, **given: Any) -> None:
        super().__init__(**given)
        self._text = text

    def collect(self) -> Iterator[pytest.Item]:
        """Raise the error."""
        raise self.CollectError(self._text)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a test file."""
    if file_path.name.endswith((".test.yaml", ".test.yml")):
        if text := _hidden_from(file_path):
            return HiddenRunner.from_parent(parent, path=file_path, text=text)
        return YamlFile.from_parent(parent, path=file_path)
    return None


class YamlFile(pytest.File):
    """A test file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the tests. Fails with every problem of the file and of its pipelines."""
        from runner.config import diagnostics
        from runner.errors import PipelineInvalid
        from runner.testing.suites import load_suite

        try:
            suite = load_suite(self.path)
        except PipelineInvalid as invalid:
            raise self.CollectError(diagnostics.full(invalid.problems)) from None
        for name in suite.spec.tests:
            yield YamlItem.from_parent(self, name=name, suite=suite)


class ExpectationFailed(Exception):
    """A test in YAML has failed."""

    def __init__(self, result: CaseResult) -> None:
        super().__init__(result.name)
        self.result = result


class YamlItem(pytest.Item):
    """A test of a test file."""

    def __init__(self, *, suite: Suite, **given: Any) -> None:
        super().__init__(**given)
        self._suite = suite

    def runtest(self) -> None:
        """Run the test."""
        from runner.testing.runs import run_case

        result = run_case(self._suite, self.name)
        if result.outcome == "skipped":
            pytest.skip(result.reason)
        if result.failures:
            raise ExpectationFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what `runner test` prints of a failed test."""
        if not isinstance(excinfo.value, ExpectationFailed):
            return super().repr_failure(excinfo, style)
        from runner.testing.reports import failure_text

        return failure_text(excinfo.value.result)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the file, the line (from 0) and the name of the test."""
        return self.path, self._suite.line(self.name) - 1, self.name
