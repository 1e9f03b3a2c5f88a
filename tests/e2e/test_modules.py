"""What `validate` says about where a handler comes from is what `up` runs, in the process and in those it starts.

Generated folders: pipelines with modules and packages of the same and of other names, with and without `python_path`,
modules that import others, and modules in the current folder that nobody means.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.process import RunnerProcess
from tests.project import MEMORY, Project, started, stop

CODES = {"module-conflict", "reserved-module"}


@dataclass(frozen=True)
class Shape:
    """One pipeline: how its handler's module is called and where it lies, and what it imports."""

    module: str
    folder: str
    helper: str
    is_lazy: bool
    has_decoy: bool
    run_in: str


shapes = st.builds(
    Shape,
    module=st.sampled_from(["work", "own", "pkg.work", "pkg.own", "space.work", "colorsys"]),
    folder=st.sampled_from(["", "src"]),
    helper=st.sampled_from(["", "helper", "helper_own"]),
    is_lazy=st.booleans(),
    has_decoy=st.booleans(),
    run_in=st.sampled_from(["thread", "process"]),
)


def write(root: Path, name: str, shape: Shape) -> dict[str, str]:
    """Write a pipeline; return the files that its handler is to name: its own, and the one that it imports."""
    base = root / name
    code = base / shape.folder
    module = shape.module.replace("own", f"own_{name}")
    helper = shape.helper.replace("own", name)
    path = code / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    if module.startswith("pkg"):
        (path.parent / "__init__.py").write_text("")
    load = f"import {helper}\n    found['helper'] = {helper}.__file__" if helper else "pass"
    top = f"import {helper}\n" if helper and not shape.is_lazy else ""
    path.write_text(
        f"import json, os\n{top}\ndef make():\n    return [1]\n\ndef work(payload: int):\n"
        f"    found = {{'pipeline': '{name}', 'module': __file__}}\n    {load}\n"
        "    with open(os.environ['FOUND'], 'a') as file:\n        file.write(json.dumps(found) + '\\n')\n"
    )
    if helper:
        (code / f"{helper}.py").write_text("")
    if shape.has_decoy:  # in a folder that comes later, or earlier for the current one: another file of the name
        decoy = root / (module.replace(".", "/") + ".py")
        decoy.parent.mkdir(parents=True, exist_ok=True)
        decoy.write_text("raise SystemExit('the wrong one')\n")
    extra = f"python_path: {shape.folder}\n" if shape.folder else ""
    (base / "pipeline.yaml").write_text(
        f"version: 1\nname: {name}\n{extra}queues: {{{name}.q: }}\n"
        f"producers: {{make: {{handler: '{module}:make', to: {name}.q}}}}\n"
        f"subscribers: {{work: {{from: {name}.q, handler: '{module}:work', run_in: {shape.run_in}, retry: none}}}}\n"
    )
    return {"module": str(path), **({"helper": str(code / f"{helper}.py")} if helper else {})}


async def run(root: Path, *arguments: str) -> tuple[int, str]:
    async with RunnerProcess(*arguments, cwd=root, env={"FOUND": str(root / "found")}) as runner:
        code = await runner.wait()
    assert "Traceback" not in runner.stderr, runner.stderr
    return code, runner.stdout


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(shapes, min_size=1, max_size=3))
def test_what_validate_says_is_what_up_runs(found: list[Shape]) -> None:
    """With and without imports the same; where it says nothing, each handler is the one in its pipeline's folders."""
    root = Path(os.path.realpath(tempfile.mkdtemp(prefix="modules-")))
    try:
        asyncio.run(_check(root, {name: write(root, name, shape) for name, shape in zip("abc", found, strict=False)}))
    finally:
        shutil.rmtree(root)


async def _check(root: Path, expected: dict[str, dict[str, str]]) -> None:
    code, said = await run(root, "validate", ".", "--format", "json")
    static_code, static = await run(root, "validate", ".", "--format", "json", "--no-imports")
    assert (static_code, json.loads(static)) == (code, json.loads(said))
    up, _ = await run(root, "up", ".", "--until-idle", *MEMORY.arguments)
    if code:
        assert up == code == 78
        assert {problem["code"] for problem in json.loads(said) if problem["severity"] == "error"} <= CODES
        assert not (root / "found").exists()
        return
    assert up == 0
    lines = [json.loads(line) for line in (root / "found").read_text().splitlines()]
    ran = {line.pop("pipeline"): {key: os.path.realpath(file) for key, file in line.items()} for line in lines}
    assert ran == expected


async def test_each_worker_runs_the_module_beside_its_pipeline(rabbit_project: Project) -> None:
    """Also where the current folder has another one, which is a warning."""
    (rabbit_project.folder / "app").mkdir()
    rabbit_project.pipeline(
        """
        version: 1
        name: UNIQUE
        queues: {UNIQUE.work: }
        producers: {make: {handler: mine:make, to: UNIQUE.work}}
        subscribers: {work: {from: UNIQUE.work, handler: mine:work, run_in: process}}
        """,
        "app/pipeline.yaml",
    )
    rabbit_project.handlers("def make(): yield 'x'\ndef work(payload: str): note(__file__)\n", "app/mine")
    rabbit_project.handlers("raise SystemExit('the wrong one')\n", "mine")
    arguments = ("up", "app/pipeline.yaml", "--workers", "2", *rabbit_project.place.arguments, "--log-format", "json")
    async with rabbit_project.run(*arguments) as runner:
        await started(runner)
        [entry] = await rabbit_project.ledger.wait_for(1)
        await stop(runner)
    assert Path(entry.payload) == rabbit_project.folder.resolve() / "app/mine.py"
    assert "app/mine.py, which hides mine.py" in runner.stderr
