"""`runner test` in a process of its own: what it prints and where, and that it runs again when a file is saved."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.process import RunnerProcess
from tests.project import until

PIPELINE = """
version: 1
events: {order.paid: }
subscribers: {ship: {from: order.paid, handler: "goods:ship"}}
"""
TESTS = """
version: 1
pipelines: [shop.yaml]
tests:
  an order is shipped:
    publish: [{to: order.paid, payload: 1}]
    expect: {handled: {ship: 1}, dead: none}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one test, which passes."""
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "goods.py").write_text("def ship(order): print('shipping')\n")
    (tmp_path / "shop.test.yaml").write_text(TESTS)
    return tmp_path


async def test_the_results_are_on_standard_output(folder: Path) -> None:
    """The summary is on standard error, and what handlers print is nowhere when all is well."""
    async with RunnerProcess("test", ".", cwd=folder) as runner:
        assert await runner.wait() == 0
    assert runner.stdout.startswith("shop.test.yaml\n  passed   an order is shipped (")
    assert runner.stderr == "1 test: 1 passed\n"


async def test_tests_run_again_when_a_file_is_saved(folder: Path) -> None:
    """In a new process, so that a module is imported as it is now; Ctrl-C ends it."""
    async with RunnerProcess("test", ".", "--watch", cwd=folder) as runner:
        await until(lambda: "1 test: 1 passed" in runner.stderr, "the first run")
        (folder / "goods.py").write_text("def ship(order): raise ValueError('no lamps')\n")
        await until(lambda: "1 test: 1 failed" in runner.stderr, "a run of the new handler")
        assert "changed: goods.py" in runner.stderr
        assert "no lamps" in runner.stdout
        runner.signal(signal.SIGINT)
        assert await runner.wait() == 0, runner.stderr
