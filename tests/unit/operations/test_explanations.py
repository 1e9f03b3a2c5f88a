"""Every code is explained, and its examples show what the explanation says."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from runner.config.loader import load
from runner.errors import PipelineInvalid
from runner.operations.explanations import Explanation, explanations
from runner.pipeline.distributions import DISTRIBUTIONS
from tests.process import ROOT

SHOP = """
import contextlib, logging

from pydantic import BaseModel

class Busy(Exception): ...
class Order(BaseModel):
    id: int
class Other(BaseModel):
    id: int

not_a_type = 5
builtin = dict.update

def yield_db(): yield 1
open_db = contextlib.contextmanager(yield_db)
def place(): ...
def ship(order): ...
def mail(order): ...
def log(order) -> None: ...
def price(order) -> dict: ...
async def ship_async(order): ...
def two(order, other): ...
def charge(order, dry_run: bool): ...
def takes_order(order: Order): ...
def takes_other(order: Other): ...
def by_attribute(order: dict): return order.id
def logs_by_name(order: dict) -> None: logging.info("shipped", order=order)
def unknown_annotation(order: "Nowhere"): ...
"""
FILES = {
    "shop.py": SHOP,
    "broken.py": "raise RuntimeError('broken')\n",
    "more.yaml": "queues: {orders: }\n",
    "named.yaml": "name: other\nqueues: {orders: }\n",
    "circle.yaml": "include: [circle2.yaml]\n",
    "circle2.yaml": "include: [circle.yaml]\nqueues: {orders: }\n",
    "orders.jsonl": "{}\n",
    "array.json": '[{"id": 1}]\n',
}
NO_CODES = {
    *("at-least-once", "drop-head", "reject-publish", "reject-publish-dlx", "alternate-exchange", "all-with-x"),
    *("utf-8", "utf-8-sig", "utf-16", "full-width", "mon-fri", "invalid-result", "f-string"),
    *("dataclass-args", "definition-ref", "function-after", "model-fields", "tagged-union", "typed-dict"),  # pydantic's
}
"""Words with a hyphen in the sources that are not codes."""

ALL = explanations()
SHOWN = [entry for entry in ALL.values() if entry.wrong]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with what the examples name; what they import is forgotten."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "pytest-" not in entry])
    for name in ("shop", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def codes(folder: Path, text: str) -> dict[str, str]:
    """Return the severities of all codes that a pipeline gets."""
    from runner.system import load as load_pipelines

    path = folder / "pipeline.yaml"
    path.write_text(text)
    try:
        problems = load_pipelines([path], {}).warnings
    except PipelineInvalid as invalid:
        problems = invalid.problems
    finally:
        for name in ("shop", "broken"):
            sys.modules.pop(name, None)
    return {problem.code: problem.severity for problem in problems}


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.code)
def test_the_wrong_example_has_the_problem_and_the_right_one_has_none(folder: Path, entry: Explanation) -> None:
    """Whoever copies the right one is done; a warning says that it is one."""
    wrong = codes(folder, entry.wrong)
    assert entry.code in wrong
    assert ("(a warning)" in entry.text) == (wrong[entry.code] == "warning")
    assert codes(folder, entry.right) == {}


def test_every_code_in_the_sources_is_explained() -> None:
    """And nothing is explained that cannot occur."""
    rooms = [*(ROOT / "runner/config").rglob("*.py"), *(ROOT / "runner/pipeline").rglob("*.py")]
    rooms += [ROOT / "runner/system.py", ROOT / "runner/operations/diff.py", ROOT / "runner/testing/expectations.py"]
    words = {
        node.value
        for path in rooms
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    words -= set(DISTRIBUTIONS.values())
    hyphenated = {word for word in words if re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", word) and not word.startswith("x-")}
    assert hyphenated - set(ALL) == NO_CODES
    assert set(ALL) - words == set()


def test_reading_a_broken_file_gives_an_explained_code(folder: Path) -> None:
    """Also those that no pipeline can show."""
    (folder / "latin.yaml").write_bytes(b"version: 1\nname: \xff\n")
    assert [problem.code for problem in load(folder / "latin.yaml", {}).problems] == ["not-utf-8"]
    assert next(iter(load(folder, {}).problems)).code in ALL
