"""The project as a stranger finds it: its files are there, its targets parse, its versions are pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.process import ROOT, RunnerProcess

FILES = (".ci/run", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml")
TARGETS = (".venv", "clean", "demo", "format", "help", "lint", "lock", "test")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_ci_can_run_its_script() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_the_target_parses(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_demo_are_there() -> None:
    examples = re.findall(r"pipelines/\w+\.yaml", (ROOT / "Makefile").read_text())
    assert examples
    assert [example for example in examples if not (ROOT / example).is_file()] == []


def test_every_constraint_is_one_exact_version_and_nothing_else() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []


def test_every_dependency_is_constrained() -> None:
    locks = (ROOT / name for name in ("constraints.txt", "constraints-bench.txt"))
    constrained = {_name(line) for lock in locks for line in lock.read_text().splitlines()}
    extras = PROJECT["optional-dependencies"].values()
    wanted = {_name(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]}
    assert wanted <= constrained


async def test_the_command_knows_its_version(tmp_path: Path) -> None:
    async with RunnerProcess("--version", cwd=tmp_path) as runner:
        assert await runner.wait() == 0
        assert PROJECT["version"] in runner.stdout


def _name(requirement: str) -> str:
    """Return the normalized name of a requirement (https://peps.python.org/pep-0503/)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()
