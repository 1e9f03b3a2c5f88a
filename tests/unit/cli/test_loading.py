"""What handlers' modules do while a command loads them: it stays out of the command's output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import cli as package

PIPELINE = 'version: 1\nqueues: {orders: }\nsubscribers: {ship: {from: orders, handler: "HANDLER:ship"}}\n'
LOUD = "import os\nprint('printed')\nos.system('echo spoken')\nos.write(1, b'written\\n')\ndef ship(order): ...\n"


def run(project: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, *arguments: str) -> int:
    (project / f"{name}.py").write_text(code)
    (project / "p.yaml").write_text(PIPELINE.replace("HANDLER", name))
    monkeypatch.setattr(sys, "argv", ["runner", *arguments])
    try:
        return package._run()
    except SystemExit as end:
        return int(end.code or 0)


def test_what_a_module_writes_is_not_in_the_json(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither its prints nor the output of programs that it starts."""
    assert run(project, monkeypatch, "loud_module", LOUD, "validate", "p.yaml", "--format", "json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == [item for item in json.loads(out) if item["severity"] == "warning"]
    assert {"printed", "spoken", "written"} <= set(err.split())


def test_ctrl_c_is_an_interruption_and_not_a_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also while a module is being imported."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    assert run(project, monkeypatch, "slow_module", code, "validate", "p.yaml") == 130
    assert capfd.readouterr().err == "\ninterrupted\n"


ONLY_FOR_MISTAKES = (
    "runner.config.foreign_words runner.config.guesses runner.config.outline runner.config.slips "
    "runner.config.unknown_keys runner.pipeline.distributions runner.pipeline.import_failures difflib shlex"
)
ONLY_FOR_SOME_PIPELINES = (
    "runner.pipeline.file_source runner.pipeline.schema_files runner.pipeline.schemas http urllib.request"
)
ONLY_FOR_SOME_RUNS = "aio_pika aiohttp multiprocessing runner.runtime.http_server runner.runtime.exposition"
ONLY_TO_RUN = "asyncio ssl structlog aio_pika multiprocessing"


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (
            "validate p.yaml",
            f"{ONLY_FOR_MISTAKES} {ONLY_FOR_SOME_PIPELINES} {ONLY_TO_RUN} runner.pipeline.static_checks",
        ),
        ("up p.yaml --until-idle", f"{ONLY_FOR_MISTAKES} {ONLY_FOR_SOME_PIPELINES} {ONLY_FOR_SOME_RUNS} email.parser"),
    ],
)
def test_a_command_imports_only_what_it_needs(project: Path, arguments: str, unneeded: str) -> None:
    """Imports are most of what a command takes to start."""
    (project / "light_module.py").write_text("def ship(order): ...\n")
    (project / "p.yaml").write_text(PIPELINE.replace("HANDLER", "light_module"))
    code = (
        "import os, sys\n"
        "def note(): open('modules', 'w').write('\\n'.join(sys.modules))\n"
        "exit_at_once, os._exit = os._exit, lambda code: (note(), exit_at_once(code))\n"
        "from runner.cli import main\n"
        f"sys.argv = ['runner', *{arguments.split()}]\n"
        "try: main()\n"
        "finally: note()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set((project / "modules").read_text().split())
    assert "runner.system" in imported
    assert imported.isdisjoint(unneeded.split())


def test_garbage_is_collected_as_usual_when_the_pipelines_run(project: Path) -> None:
    """At the start it is not: nearly all that a start makes stays."""
    note = "open({!r}, 'w').write(str([*gc.get_threshold()]))"
    (project / "note_module.py").write_text(
        f"import gc\n{note.format('loading')}\ndef make(): return {{}}\ndef ship(order): {note.format('running')}\n"
    )
    producer = 'producers: {make: {to: orders, handler: "note_module:make"}}\n'
    (project / "p.yaml").write_text(PIPELINE.replace("HANDLER", "note_module") + producer)
    code = f"import gc\n{note.format('before')}\nfrom runner.cli import main\nmain()\n"
    command = [sys.executable, "-c", code, "up", "p.yaml", "--until-idle"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *others = json.loads((project / "before").read_text())
    assert json.loads((project / "loading").read_text()) == [200_000, *others]
    assert json.loads((project / "running").read_text()) == [first, *others]


def test_plugins_of_pydantic_see_the_models_of_handlers_and_not_the_pipeline(project: Path) -> None:
    """There are passwords in pipelines, and to look for plugins takes time."""
    installed = project / "installed" / "spy-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[pydantic]\nspy = spy_plugin:Spy\n")
    (project / "installed" / "spy_plugin.py").write_text(
        "class Spy:\n"
        "    @staticmethod\n"
        "    def new_schema_validator(schema, schema_type, path, *rest):\n"
        "        with open('seen', 'a') as file: file.write(f'{path.name}\\n')\n"
        "        return None, None, None\n"
    )
    (project / "spied_module.py").write_text(
        "import pydantic\nclass Order(pydantic.BaseModel):\n    number: int\ndef ship(order: Order): ...\n"
    )
    (project / "p.yaml").write_text(PIPELINE.replace("HANDLER", "spied_module"))
    command = [sys.executable, "-P", "-m", "runner", "validate", "p.yaml"]
    path = os.pathsep.join([str(project / "installed"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Order" in (project / "seen").read_text().split()
    assert not [name for name in (project / "seen").read_text().split() if name.endswith("Spec")]
