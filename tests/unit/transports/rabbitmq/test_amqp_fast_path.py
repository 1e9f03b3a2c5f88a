"""What relies on the inside of aiormq and aio-pika stands in two modules, and nowhere else."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from yarl import URL

from runner.transports.rabbitmq.amqp_fast_path import FastPathConnection

ROOT = Path(__file__).resolve().parents[4] / "runner"
ALLOWED = {"amqp_fast_path.py", "aiormq_workarounds.py"}
OF_NAMEDTUPLES = {"_replace", "_make", "_asdict", "_fields"}
INSIDE = {
    *("connection_tune", "f_locals", "f_back", "close_callbacks", "FrameReceiver", "FrameGenerator", "ChannelFrame"),
    *("TransportFactory", "server_properties", "write_queue", "frames"),
}
"""Public by their names, and no part of what the two libraries document."""


def clients() -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules that use the client libraries."""
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        if any(name.partition(".")[0] in ("aio_pika", "aiormq") for name in modules):
            yield path, tree


def own_names(tree: ast.Module) -> set[str]:
    """Return what a module itself defines or assigns."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assigned = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return functions | assigned


def test_the_inside_of_aiormq_is_used_in_two_modules_alone() -> None:
    found = []
    for path, tree in clients():
        if path.name in ALLOWED:
            continue
        own = own_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                is_private = node.attr.startswith("_") and not node.attr.startswith("__")
                is_theirs = is_private and node.attr not in own and node.attr not in OF_NAMEDTUPLES
                if is_theirs or node.attr in INSIDE:
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_the_client_libraries_are_looked_for() -> None:
    """Else the rule above could not fail."""
    assert {"connection.py", "consumer_channel.py", "publish_channel.py"} <= {path.name for path, _ in clients()}


def test_a_connection_that_is_collected_does_nothing_to_another_event_loop() -> None:
    """aio-pika's own would be closed by a task of whichever loop runs in the thread that collects it."""
    closed = []

    async def make() -> FastPathConnection:
        return FastPathConnection(URL("amqp://127.0.0.1"))

    async def note_closed() -> None:
        closed.append(True)

    async def collect() -> None:
        connections.clear()
        gc.collect()
        await asyncio.sleep(0)  # one turn of the loop, for a task to begin

    with closing(asyncio.new_event_loop()) as loop:
        connections = [loop.run_until_complete(make())]
        connections[0].close = note_closed  # type: ignore[method-assign,assignment]
        asyncio.run(collect())
    assert closed == []
