"""Handlers that are no plain functions: what made them, and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import PipelineInvalid, Problem
from runner.system import load

PIPELINE = """
version: 1
queues: {orders: }
subscribers: {ship: {from: orders, handler: "app:HANDLER"}}
"""
ACTORS = """
from typing import Generic, ParamSpec
P = ParamSpec("P")
class Actor(Generic[P]):
    def __init__(self, function): self.function = function
    def __call__(self, *args: P.args, **kwargs: P.kwargs): return self.function(*args, **kwargs)
def actor(**options): return Actor
"""
WRAPPER = "    def wrapper(*args, **kwargs): return function(*args, **kwargs)\n"

WRONG = {
    f"def timed(function):\n{WRAPPER}@timed\ndef ship(order): ...\n": (
        ("not-callable", "app.py:1", "add `return wrapper` at the end of timed"),
        "ship",
    ),
    "async def make(): ...\nship = make()\n": (
        ("not-callable", "app.py:2", "write `ship = asyncio.run(make())`"),
        "ship",
    ),
    "def make():\n    yield 1\nship = make()\n": (("not-callable", "app.py:3", "write `ship = make`"), "ship"),
    "def make(): ...\nship = make()\n": (("not-callable", "app.py:1", "at the end of make"), "ship"),
    "class Shop:\n    @property\n    def ship(self): return 1\nshop = Shop()\n": (
        ("not-callable", "app.py:3", "remove `@property`"),
        "shop.ship",
    ),
    f"def timed(function):\n{WRAPPER}    return wrapper\n@timed\ndef ship(order, message): ...\n": (
        ("wrong-parameters", "app.py:2", 'put `@functools.wraps(function)` above "def wrapper"'),
        "ship",
    ),
    "class timed:\n    def __init__(self, inner): self.inner = inner\n    def __call__(self, *args): ...\n"
    "@timed\ndef ship(order: int): ...\n": (
        ("wrong-parameters", "app.py:3", "add `functools.update_wrapper(self, self.inner)`"),
        "ship",
    ),
    "import dramatiq\n@dramatiq.actor(max_retries=3)\ndef ship(order: dict): ...\n": (
        (
            "foreign-handler",
            "app.py:3",
            "remove `@dramatiq.actor(max_retries=3)` above it, and write `retry: {attempts: 4}`",
        ),
        "ship",
    ),
    "from functools import partial\ndef f(order, carrier): ...\nship = partial(f, carier=1)\n": (
        ("bad-signature", "p.yaml:4", 'did you mean "carrier"?'),
        "ship",
    ),
}


def problems(project: Path, code: str, name: str) -> list[Problem]:
    (project / "app.py").write_text(code)
    (project / "dramatiq.py").write_text(ACTORS)
    (project / "p.yaml").write_text(PIPELINE.replace("HANDLER", name))
    try:
        return list(load([Path("p.yaml")], {}).warnings)
    except PipelineInvalid as invalid:
        return list(invalid.problems)


@pytest.mark.parametrize(("code", "expected"), WRONG.items())
def test_an_object_that_is_no_handler(project: Path, code: str, expected: tuple[tuple[str, str, str], str]) -> None:
    """With the place of what is to be changed. A coroutine is closed, so that Python does not warn of it."""
    (kind, place, help_), name = expected
    [problem] = problems(project, code, name)
    assert (problem.severity, problem.code) == ("error", kind)
    assert f"{Path(problem.file).name}:{problem.line}" == place
    assert help_ in problem.help


@pytest.mark.parametrize(
    "code",
    [
        f"def timed(function):\n{WRAPPER}    return wrapper\n@timed\ndef ship(order: dict): ...\n",
        f"import functools\ndef timed(function):\n    @functools.wraps(function)\n{WRAPPER}    return wrapper\n"
        "from runner import Message\n@timed\ndef ship(order: int, message: Message): ...\n",
        "def ship(*args): ...\n",
    ],
)
def test_a_decorator_that_hides_nothing(project: Path, code: str) -> None:
    assert problems(project, code, "ship") == []


def test_all_parameters_of_a_batch_are_reported_at_once(project: Path) -> None:
    code = "from runner import Message\ndef ship(order: int, message: Message, *, a, b): ...\n"
    (project / "app.py").write_text(code)
    text = PIPELINE.replace('"app:HANDLER"', '"app:ship", batch: {size: 2, wait: 1s}, with: {aa: 1, x: 2}')
    (project / "p.yaml").write_text(text)
    with pytest.raises(PipelineInvalid) as caught:
        load([Path("p.yaml")], {})
    helps = [problem.help for problem in caught.value.problems]
    assert any("`list[runner.Message]`" in text for text in helps)
    assert any("`order: list[int]`, and loop over it" in text for text in helps)
    assert [problem.path for problem in caught.value.problems if ".with." in problem.path] == [
        "subscribers.ship.with.aa",
        "subscribers.ship.with.x",
    ]
