"""docs/reference/logs.md says what is written: every event of the code is in the table, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from runner.metrics import Totals
from tests.log_events import EVENTS, TOTALS
from tests.process import ROOT

ROOMS = ("app.py", "log.py", "runtime", "transports", "workers")
NAME = re.compile(r"[a-z_]+\.[a-z_]+|stdout")
LEVELS = ("debug", "info", "warning", "error")

NO_EVENTS = re.compile(r"amq\.\w+|connection\.blocked|leadership\.(call|greeting|token)|aiohttp\.\w+|fuse\.\w+")
"""Names that only look like events: of exchanges, of messages, of loggers, of file systems."""


def told() -> Iterator[tuple[str, str | None]]:
    """Yield each event in the code, and its level where it stands beside it."""
    for room in ROOMS:
        path = ROOT / "runner" / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield from _of_call(node)
                elif isinstance(node, ast.Assign):  # event = "broker.blocked" if … else "broker.unblocked"
                    yield from ((name, None) for name in _names(ast.walk(node.value)))


def _of_call(call: ast.Call) -> Iterator[tuple[str, str | None]]:
    beside = [each.value for each in call.args if isinstance(each, ast.Constant)]
    said = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    level = next((each for each in (*beside[1:2], said) if each in LEVELS), None)
    for name in _names(call.args[:1]):
        if level is not None or not isinstance(call.func, ast.Attribute) or said.startswith("_"):
            yield name, level


def _names(nodes: object) -> Iterator[str]:
    for node in nodes:  # type: ignore[attr-defined]
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and NAME.fullmatch(value) and not NO_EVENTS.fullmatch(value):
            yield value


def test_every_event_of_the_code_is_in_the_table_and_no_other() -> None:
    assert {name for name, _ in told()} == {event.name for event in EVENTS}


def test_every_level_of_the_code_is_in_the_table() -> None:
    levels = {event.name: event.levels for event in EVENTS}
    assert [(name, level) for name, level in told() if level is not None and level not in levels[name]] == []


def test_the_table_is_in_order_and_names_every_total() -> None:
    names = [event.name for event in EVENTS]
    assert names == sorted(set(names))
    assert list(Totals().as_fields()) == TOTALS
