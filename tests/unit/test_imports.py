"""The rules of the house that a reader would otherwise have to trust: who may import whom, names, and sizes."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WORDS = (
    *(
        "text_width",
        "backoff",
        "clock",
        "envelope_json",
        "errors",
        "log",
        "log_renderers",
        "log_output",
        "log_capture",
        "message",
        "metrics",
        "outcome",
    ),
    *("redaction", "release", "schedule", "tables", "tasks", "trace_context", "units"),
)
VOCABULARY = tuple(f"runner.{word}" for word in WORDS)

# From low to high. A layer has rooms, a room has modules or packages: imports go to a lower layer or stay in the room.
LAYERS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (VOCABULARY,),
    (("runner",),),
    (("runner.config",),),
    (("runner.pipeline",),),
    (("runner.transports",),),
    (("runner.transports.memory",), ("runner.transports.rabbitmq",), ("runner.runtime",)),
    (("runner.transports.file",),),
    (("runner.operations",), ("runner.workers",)),
    (("runner.system",),),
    (("runner.page",),),
    (("runner.app", "runner.publisher", "runner.testing"),),
    (("runner.reload",),),
    (("runner.cli", "runner.__main__"),),
)
ROOMS = {part: (height, room) for height, layer in enumerate(LAYERS) for room in layer for part in room}

HOMES = {
    "aio_pika": ("runner.transports.rabbitmq", "runner.operations.rabbitmq"),
    "aiohttp": ("runner.runtime.http_server", "runner.page"),
    "aiormq": ("runner.transports.rabbitmq", "runner.operations.rabbitmq"),
    "annotationlib": ("runner.pipeline.annotations",),  # of the standard library, from Python 3.14 on
    "click": ("runner.cli",),
    "cronsim": ("runner.config.schedule_fields", "runner.schedule"),  # one judges a line, the other runs by it
    "opentelemetry": ("runner.runtime.trace_export", "runner.runtime.tracing"),
    "jsonschema_rs": ("runner.pipeline.schema_files",),
    "pamqp": ("runner.transports.rabbitmq", "runner.operations.rabbitmq"),
    "prometheus_client": ("runner.runtime.exposition", "runner.runtime.http_server"),
    "pydantic": ("runner.config", "runner.pipeline"),
    "pydantic_core": ("runner.config", "runner.pipeline"),
    "redis": ("runner.runtime.redis_store",),
    "structlog": ("runner.log",),
    "uvloop": ("runner.cli",),
    "watchfiles": ("runner.cli.watching",),
    "yaml": ("runner.config",),
    "yarl": ("runner.transports.rabbitmq", "runner.operations.rabbitmq"),
}

PUBLIC_LATER = {("runner", "runner.publisher")}
"""What the package offers by name, and imports only when it is used."""

BANNED_NAMES = re.compile(r"utils?|helpers?|common|managers?|base_.*")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 600, 40
LONGER: dict[str, str] = {}
"""Files (`runner/a.py`) and functions (`runner/a.py:name`) that are longer, each with its reason."""

AT_THE_START = {
    ("runner.runtime.exposition", "prometheus_client"),
    ("runner.runtime.handler_invoker", "runner.runtime.process_pool"),
    ("runner.runtime.process_pool", "runner.runtime.tracing"),
    ("runner.runtime.publisher", "runner.runtime.tracing"),
    ("runner.runtime.resources", "runner.pipeline.import_failures"),
    ("runner.runtime.store", "runner.runtime.redis_store"),
    ("runner.runtime.store", "runner.runtime.sqlite_store"),
    ("runner.runtime.supervisor", "runner.runtime"),
    ("runner.runtime.supervisor", "runner.runtime.http_producer"),
    ("runner.runtime.supervisor", "runner.runtime.http_server"),
    ("runner.runtime.supervisor", "runner.runtime.idempotency"),
    ("runner.runtime.supervisor", "runner.runtime.tracing"),
}
"""What the engine imports late, for a quick start, but before the first message is handled."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FILES = sorted((ROOT / "runner").rglob("*.py"))


def test_imports_point_down() -> None:
    wrong = []
    for path, line, target in _imports():
        module = _module(path)
        if not _is_in(target, "runner"):
            continue
        if (module, target) in PUBLIC_LATER:
            continue
        height, room = _room(module)
        target_height, target_room = _room(target)
        if target_height >= height and target_room != room:
            wrong.append(f"{path.relative_to(ROOT)}:{line}: {module} may not import {target}")
    assert not wrong, "\n".join(wrong)


def test_each_library_has_one_home() -> None:
    wrong = []
    for path, line, target in _imports():
        library, module = target.partition(".")[0], _module(path)
        if library == "runner" or library in sys.stdlib_module_names:
            continue
        if not any(_is_in(module, home) for home in HOMES.get(library, ())):
            wrong.append(f"{path.relative_to(ROOT)}:{line}: {module} is not the home of {library}")
    assert not wrong, "\n".join(wrong)


def test_each_library_is_declared() -> None:
    """One that comes only with another library may be gone with that one's next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    declared = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in required}  # type: ignore[index]
    names = {"yaml": "pyyaml", "opentelemetry": "opentelemetry-api"}
    used = {target.partition(".")[0] for _, _, target in _imports()} - {"runner"} - set(sys.stdlib_module_names)
    used -= {"annotationlib"}
    assert {names.get(library, library.replace("_", "-")) for library in used} - declared == set()


def test_what_runs_imports_nothing_new() -> None:
    """A process without file descriptors, or whose folder is gone, must still settle, log and retry."""
    found = set()
    for path in FILES:
        if _is_in(_module(path), "runner.runtime") or _is_in(_module(path), "runner.transports"):
            functions = (node for node in ast.walk(_trees()[path]) if isinstance(node, FUNCTIONS))
            inner = {item for node in functions for item in ast.walk(node) if isinstance(item, ast.ImportFrom)}
            found |= {(_module(path), item.module or "") for item in inner}
    assert {item for item in found if not item[1].startswith("aiohttp")} == AT_THE_START


def test_no_room_is_named_for_nothing() -> None:
    parts = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert [part for part in sorted(parts) if BANNED_NAMES.fullmatch(part)] == []


def test_files_and_functions_are_short() -> None:
    files = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    long = {name for name, lines in files.items() if lines > MAX_FILE_LINES}
    for path, node in _functions():
        if _body_lines(node) > MAX_FUNCTION_LINES:
            long.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert sorted(long) == sorted(LONGER), "longer than allowed, or excused without need"


@functools.cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in FILES}


def _imports() -> Iterator[tuple[Path, int, str]]:
    """Yield every import of every file, also those in functions and under TYPE_CHECKING, as (file, line, module)."""
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative import"
                for alias in node.names:
                    member = f"{node.module}.{alias.name}"
                    yield path, node.lineno, member if member in MODULES else str(node.module)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path) for path in FILES}


def _is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _room(module: str) -> tuple[int, tuple[str, ...]]:
    """Return the height and the room of a module; modules right under `runner` must be named in LAYERS."""
    places = [part for part in ROOMS if module == part or (part != "runner" and _is_in(module, part))]
    assert places, f"{module} has no room: give it one in LAYERS, and in docs/architecture.md"
    return ROOMS[max(places, key=len)]


def _functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines the body has, without its docstring."""
    statements = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (node.end_lineno or 0) - statements[0].lineno + 1 if statements else 0
