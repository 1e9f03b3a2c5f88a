"""S4, S8, S9, S10, S17: whose code runs, and when. A pipeline names the code that it runs, and is trusted as such;
what only looks at a pipeline runs none of it, and no file of the project stands in for Python's own.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.pipeline.python_source import parse_python
from tests.process import ROOT
from tests.project import Project, started, stop

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {schema: trap.models:Order}, UNIQUE.done: {}}
    resources: {db: {factory: trap.models:connect}}
    subscribers:
      handle: {from: UNIQUE.work, handler: trap.work:handle, to: UNIQUE.done}
      apart: {from: UNIQUE.done, handler: trap.work:apart, run_in: process}
"""
TRAP = """
    import os, pathlib
    pathlib.Path("sprung").touch()
    BaseModel = object
    class Order:
        number: int
        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler): raise SystemExit
    def connect(): ...
    def handle(order, db): ...
    def apart(order): ...
    while True:
        pass
"""


@pytest.mark.parametrize(
    "arguments",
    [("validate", "--no-imports"), ("config",), ("config", "--origin"), ("graph",), ("graph", "--format", "svg")],
    ids=" ".join,
)
async def test_looking_at_a_pipeline_runs_none_of_its_code(memory_project: Project, arguments: tuple[str, ...]) -> None:
    """Modules that write, leave and never end, and the packages around them: found and parsed, never run."""
    memory_project.pipeline(PIPELINE)
    package = memory_project.folder / "trap"
    package.mkdir()
    for name in ("trap/__init__", "trap/work", "trap/models"):
        memory_project.handlers(TRAP, name)
    verb, *rest = arguments
    await memory_project.run_to_end(verb, memory_project.file, *rest)
    assert not (memory_project.folder / "sprung").exists()


SHADOWS = (
    *("json", "logging", "asyncio", "ssl", "socket", "random", "email", "typing", "queue", "secrets", "signal"),
    *("multiprocessing", "concurrent", "graphlib", "platform", "html", "xml", "csv", "runpy", "site", "sitecustomize"),
)


async def test_no_file_of_the_project_stands_in_for_pythons_own(memory_project: Project) -> None:
    """A json.py beside the pipeline is not run: by no command, and in no process for handlers. A warning says so."""
    memory_project.one_queue(
        """
        import csv, json, xml.dom
        def send(): yield {"a": 1}
        def handle(order): note(json.dumps(order))
        """,
        "run_in: process",
    )
    for name in SHADOWS:
        (memory_project.folder / f"{name}.py").write_text(f"open('sprung-{name}', 'w').close()\nraise SystemExit(3)\n")
    await memory_project.up_until_idle("--log-format", "json")
    runner = await memory_project.run_to_end("validate", memory_project.file)
    assert {f"{name}.py" for name in ("csv", "json", "xml") if f"which hides {name}.py" in runner.stdout} == {
        "csv.py",
        "json.py",
        "xml.py",
    }
    assert memory_project.ledger.payloads() == ['{"a": 1}']
    assert list(memory_project.folder.glob("sprung-*")) == []


async def test_nothing_is_installed_or_written_beside_the_pipeline(memory_project: Project) -> None:
    """`up` leaves the project as it was, but for what Python keeps of modules."""
    memory_project.write("version: 1\nqueues: {UNIQUE.work: }\n", "")
    before = {path.name for path in memory_project.folder.iterdir()}
    async with memory_project.up() as runner:
        await started(runner)
        await stop(runner)
    assert {path.name for path in memory_project.folder.iterdir()} - before <= {"__pycache__"}


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "os:system('id')",
        "os:path.",
        "os:path..join",
        "..os:system",
        "./work:handle",
        "/tmp/work:handle",
        "work.py:handle:x",
        "work:",
        ":system",
        "work:handle()",
        "work;import os:x",
        "work:handle\\nos:system",
        "wörk :handle",
        "work :handle",
        "builtins:eval; x",
        "lambda: 1",
        "http://evil.example/work:handle",
    ],
)
def test_an_import_path_is_a_path_and_no_expression(path: str) -> None:
    """A module, a colon and a path of names: nothing is called or subscripted."""
    text = f'version: 1\nqueues: {{q: }}\nsubscribers: {{s: {{from: q, handler: "{path}"}}}}\n'
    assert [problem.code for problem in load_text(text, Path("a.yaml"), {}).problems] == ["bad-import-path"]


BANNED_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
BANNED_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "subprocess", "pty", "telnetlib"}
BANNED_ATTRIBUTES = {
    *(("os", name) for name in ("system", "popen", "execv", "execvp", "spawnv", "startfile")),
    *(("yaml", name) for name in ("load", "load_all", "unsafe_load", "full_load", "Loader", "UnsafeLoader")),
    *(("yaml", name) for name in ("FullLoader", "CLoader", "YAMLObject")),
    *(("ssl", name) for name in ("CERT_NONE", "_create_unverified_context", "PROTOCOL_TLS")),
}
PICKLES = {ROOT / "runner/runtime/process_pool.py"}
"""What crosses the pipe to a handler's process is ours; see there."""


@pytest.mark.parametrize("file", sorted((ROOT / "runner").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_evaluated_unpickled_or_handed_to_a_shell(file: Path) -> None:
    """Nor is a certificate unchecked, YAML loaded with tags, or foreign text used as a format."""
    found = []
    for node in ast.walk(parse_python(file.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                found.append(name)
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in BANNED_ATTRIBUTES:
                found.append(f"{module}.{name}")
            case ast.Import(names=names):
                found += [alias.name for alias in names if alias.name.partition(".")[0] in BANNED_MODULES]
                found += [alias.name for alias in names if alias.name == "pickle" and file not in PICKLES]
            case ast.ImportFrom(module=module) if (module or "").partition(".")[0] in BANNED_MODULES | {"pickle"}:
                found.append(str(module))
            case ast.Call(func=ast.Attribute(value=value, attr="format" | "format_map")):
                is_ours = isinstance(value, ast.Name) and value.id.isupper()
                if not isinstance(value, ast.Constant) and not is_ours:
                    found.append(f"{ast.unparse(value)}.format")
            case ast.keyword(arg="shell" | "verify_ssl" | "no_verify_ssl"):
                found.append(str(node.arg))
    assert found == []
