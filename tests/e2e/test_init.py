"""`runner init`: the project it writes works, and its own test passes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.node import free_port
from tests.process import ROOT, RunnerProcess
from tests.project import started, stop, until


async def test_a_new_project_is_valid_runs_and_passes_its_test(tmp_path: Path) -> None:
    """Whoever types what `init` says to type sees it work."""
    async with RunnerProcess("init", "my shop", cwd=tmp_path) as runner:
        assert await runner.wait() == 0, runner.stderr
    folder = tmp_path / "my shop"
    assert set(runner.stdout.splitlines()) == {f"my shop/{path.name}" for path in folder.iterdir()}
    assert runner.stderr.splitlines() == [
        "next:",
        "  cd 'my shop'",
        "  runner validate pipeline.yaml",
        "  runner up pipeline.yaml --until-idle",
        "  runner test .",
        "  python -m pytest",
    ]
    async with RunnerProcess("validate", "--strict", "pipeline.yaml", cwd=folder) as runner:
        assert await runner.wait() == 0, runner.stdout
    async with RunnerProcess("up", "pipeline.yaml", "--until-idle", cwd=folder) as runner:
        assert await runner.wait() == 0, runner.stderr
    assert "stopped: 3 published · 6 handled · 0 retried · 0 dead-lettered" in runner.stderr
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    async with RunnerProcess("test", ".", "--fail-under", "60", cwd=folder) as runner:
        assert await runner.wait() == 0, runner.stdout + runner.stderr
    assert "2 tests: 2 passed" in runner.stderr


async def test_what_its_container_runs_is_healthy(tmp_path: Path) -> None:
    """The command of the Dockerfile starts the pipeline, and its health check asks where that answers."""
    async with RunnerProcess("init", "shop", cwd=tmp_path) as runner:
        assert await runner.wait() == 0, runner.stderr
    text = (tmp_path / "shop" / "Dockerfile").read_text().replace("8080", str(free_port()))
    check, command = (json.loads(found) for found in re.findall(r"CMD (\[.*\])", text))
    assert (check[0], command[0]) == ("python", "runner")

    def asked() -> int:
        return subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False).returncode

    assert asked() != 0
    async with RunnerProcess(*command[1:], cwd=tmp_path / "shop") as runner:
        await started(runner)
        assert asked() == 0
        await until(lambda: runner.stdout.count("message.handled") == 6, "nothing is left to handle")
        await stop(runner)


async def test_a_new_project_runs_from_any_folder(tmp_path: Path) -> None:
    """Its handlers lie beside its pipeline: also from a folder that has another module of that name."""
    async with RunnerProcess("init", "shop", cwd=tmp_path) as runner:
        assert await runner.wait() == 0, runner.stderr
    (tmp_path / "orders.py").write_text("raise SystemExit('the wrong one')\n")
    for command in ("validate", "up"):
        rest = ("--until-idle",) if command == "up" else ()
        async with RunnerProcess(command, "shop/pipeline.yaml", *rest, cwd=tmp_path) as runner:
            assert await runner.wait() == 0, runner.stderr
        assert "shop/orders.py, which hides orders.py" in runner.stdout + runner.stderr
    assert "stopped: 3 published · 6 handled" in runner.stderr


async def test_what_must_be_installed_is_named(tmp_path: Path) -> None:
    """In an environment without pytest, before the step that needs it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pytest'] = None\n")
    async with RunnerProcess("init", "shop", cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as runner:
        assert await runner.wait() == 0, runner.stderr
    assert runner.stderr.splitlines()[-2:] == ["  python -m pip install pytest", "  python -m pytest"]


async def test_the_help_begins_with_it(tmp_path: Path) -> None:
    """It is what a newcomer types first."""
    async with RunnerProcess("--help", cwd=tmp_path) as runner:
        assert await runner.wait() == 0
    assert "Start with `runner init DIR`" in runner.stdout
    assert runner.stdout.partition("\nWrite:\n")[2].split()[0] == "init"


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second time it lists what is in the way, and changes nothing; exit code 2."""
    (tmp_path / "pipeline.yaml").write_text("mine")
    async with RunnerProcess("init", cwd=tmp_path) as runner:
        assert await runner.wait() == 2
    assert runner.stdout == ""
    assert "pipeline.yaml" in runner.stderr
    assert "orders.py" not in runner.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


async def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    """No traceback."""
    (tmp_path / "file").write_text("")
    async with RunnerProcess("init", "file/project", cwd=tmp_path) as runner:
        assert await runner.wait() == 2
    assert "cannot write file/project" in runner.stderr
