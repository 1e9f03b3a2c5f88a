"""The plugin for pytest: test files in YAML are collected, selected and reported like other tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    expect: {handled: {ship: 1}}
  an order is shipped twice:
    publish: [{to: order.paid, payload: 1}]
    expect: {handled: {ship: 2}}
  an order is refunded:
    expect: {dead: none}
  an order is sent back:
    skip: nothing is ever sent back
    expect: {dead: none}
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "--tb=short", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_tests_in_yaml_are_items_of_pytest(tmp_path: Path) -> None:
    """With node ids, `-k`, skips, and failures that point at their line; also distributed over processes."""
    (tmp_path / "goods.py").write_text("def ship(order): print('shipping')\n")
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "shop.test.yaml").write_text(TESTS)
    (tmp_path / "wrong.test.yaml").write_text(TESTS.replace("to: order.paid", "to: order.pad"))
    done = pytest_in(tmp_path, "-n", "1", "-k", "order and not refunded")
    assert done.returncode == 1
    assert "PASSED shop.test.yaml::an order is shipped\n" in done.stdout
    assert "FAILED shop.test.yaml::an order is shipped twice" in done.stdout
    assert "SKIPPED [1]" in done.stdout
    assert "nothing is ever sent back" in done.stdout
    assert "error[unmet-expectation]: expect.handled.ship: expected 2, got 1\n  --> shop.test.yaml:10:30" in done.stdout
    assert "ERROR wrong.test.yaml" in done.stdout
    assert 'no queue or event is called "order.pad"' in done.stdout
    assert "1 failed, 1 passed, 1 skipped, 1 error" in done.stdout
    assert "refunded" not in done.stdout


def test_nothing_is_imported_where_there_are_no_such_files() -> None:
    """A start of pytest in another project costs next to nothing."""
    script = "import sys; import mqrunner_pytest; print(*sorted(n for n in sys.modules if n.partition('.')[0] in "
    script += "('runner', 'pydantic', 'yaml', 'click', 'aio_pika', 'structlog')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
