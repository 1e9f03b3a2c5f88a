"""A module `runner` of the user's is found before it can take the place of the package, however a command starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STARTS = (
    [str(Path(sys.executable).with_name("runner"))],
    [sys.executable, "-m", "mqrunner"],
    [sys.executable, "-P", "-m", "mqrunner"],
)
COMMANDS = (["--version"], ["validate", "pipeline.yaml"], ["up", "pipeline.yaml", "--workers", "2"])
FILES = ("runner.py", "runner/__init__.py")


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that `runner init` has filled."""
    above = tmp_path_factory.mktemp("new")
    assert run(above, *STARTS[0], "init", "shop").returncode == 0
    return above / "shop"


@pytest.fixture(params=FILES)
def project(request: pytest.FixtureRequest, tmp_path: Path, new_project: Path) -> tuple[Path, Path]:
    """Return a copy of that folder, and a file in it that hides the runner and must not run."""
    folder = tmp_path / "shop"
    shutil.copytree(new_project, folder)
    file = folder / str(request.param)
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('the file of the user runs')\n")
    return folder, file


@pytest.mark.parametrize("start", STARTS, ids=["console script", "-m", "-P -m"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_runner_on_pythonpath_is_an_error_at_the_start(
    project: tuple[Path, Path], start: list[str], command: list[str]
) -> None:
    """Each command says where the file is, also those that read no pipeline."""
    folder, file = project
    done = run(folder, *start, *command, PYTHONPATH=str(folder))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f'error[reserved-module]: module "runner" is the runner itself, and {file} hides it\n'
        f"  = help: give this file another name, or take {folder} out of PYTHONPATH\n"
    )


@pytest.mark.parametrize("start", STARTS, ids=["console script", "-m", "-P -m"])
@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: command[0])
def test_a_runner_beside_the_pipeline_is_an_error_in_it(
    project: tuple[Path, Path], start: list[str], command: list[str]
) -> None:
    """The folder of a pipeline comes onto the import path with it. Other commands do not care."""
    folder, file = project
    done = run(folder, *start, *command)
    assert done.returncode == 78
    message = f'module "runner" is the runner itself, and {file.relative_to(folder)} would hide it'
    assert f"error[reserved-module]: {message}" in done.stderr + done.stdout
    assert run(folder, *start, "--version").returncode == 0


@pytest.mark.parametrize("tests", ["test_pipeline.py", "pipeline.test.yaml"])
@pytest.mark.parametrize("start", [[sys.executable, "-m", "pytest"], [str(Path(sys.executable).with_name("pytest"))]])
def test_the_tests_of_a_new_project_show_the_error(project: tuple[Path, Path], start: list[str], tests: str) -> None:
    """pytest puts the folder of the test onto the import path, with the file of the user in it."""
    folder, _ = project
    done = run(folder, *start, "-q", "-p", "no:cacheprovider", tests)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "error[reserved-module]" in done.stdout
    assert "the file of the user runs" not in done.stdout + done.stderr


def test_other_projects_keep_their_runner(tmp_path: Path) -> None:
    """The plugin is loaded wherever it is installed: there it must not get into the way."""
    (tmp_path / "runner.py").write_text("NAME = 'mine'\n")
    (tmp_path / "test_mine.py").write_text("import runner\n\ndef test_it(): assert runner.NAME == 'mine'\n")
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout
