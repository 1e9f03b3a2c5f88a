"""Loading is fast, and leaves the process as it was."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from unittest.mock import Mock

import pytest
import structlog

from runner.testing import running, running_sync
from runner.testing.loading import loaded
from tests.unit.testing.projects import write_project

PIPELINE = """
    queues: {work: }
    subscribers: {do: {from: work, handler: shop_handlers:do, to: work, retry: none}}
    """
HANDLERS = """
    import shop_models
    def do(item):
        import shop_late
        assert item == shop_models.NAME == shop_late.NAME, (item, shop_models.NAME)
    """


def _project(folder: Path, name: str) -> Path:
    path = write_project(folder, PIPELINE, HANDLERS)
    for module in ("shop_models", "shop_late"):
        (folder / f"{module}.py").write_text(f"NAME = {name!r}\n")
    return path


def _handle(path: Path, name: str) -> None:
    with running_sync(path) as pipelines:
        pipelines.publish("work", name)
        pipelines.until_idle()
        assert [record.error for record in pipelines.dead()] == []
        assert len(pipelines.handled("do")) == 1


def test_two_projects_may_have_modules_of_the_same_name(tmp_path: Path) -> None:
    first, second = _project(tmp_path / "first", "first"), _project(tmp_path / "second", "second")
    for _ in range(2):
        _handle(first, "first")
        _handle(second, "second")


def test_a_module_is_imported_once_for_all_tests(tmp_path: Path) -> None:
    """Importing it twice may do harm: some libraries refuse to register a name again."""
    path = _project(tmp_path, "first")
    with (tmp_path / "shop_late.py").open("a") as file:
        file.write("import os; os.environ['SHOP_IMPORTS'] = os.environ.get('SHOP_IMPORTS', '') + 'x'\n")
    try:
        for env in ({}, {}, {"A": "1"}):
            with running_sync(path, env=env) as pipelines:
                pipelines.publish("work", "first")
                pipelines.until_idle()
        assert os.environ["SHOP_IMPORTS"] == "x"
    finally:
        os.environ.pop("SHOP_IMPORTS", None)


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    path = _project(tmp_path, "first")
    _handle(path, "first")
    (tmp_path / "shop_models.py").write_text("NAME = 'another'\n")
    (tmp_path / "shop_late.py").write_text("NAME = 'another'\n")
    (tmp_path / "shop_handlers.py").write_text(dedent(HANDLERS) + "\n")
    _handle(path, "another")
    path.write_text(path.read_text().replace("do:", "act:"))
    with running_sync(path) as pipelines:
        assert [each.name for each in pipelines.engine.pipelines[0].subscribers] == ["act"]


def test_unchanged_files_are_read_once(tmp_path: Path) -> None:
    path = _project(tmp_path, "first")
    with loaded([path], {}) as first, loaded([path], {}) as second, loaded([path], {"A": "1"}) as third:
        assert first is second
        assert first is not third


def test_a_handler_that_a_test_has_patched_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = "async def do(item): return item - 1 if item else None\n"
    path = write_project(tmp_path, PIPELINE, handlers, module="patched_handlers")
    path.write_text(path.read_text().replace("shop_handlers", "patched_handlers"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("patched_handlers")
    for stand_in, published in ((None, 1), (Mock(return_value=None), 0), (None, 1)):
        with monkeypatch.context() as patch:
            if stand_in is not None:
                patch.setattr(module, "do", stand_in)
            with running_sync(path) as pipelines:
                pipelines.publish("work", 1)
                assert len(pipelines.published()) == published
                assert stand_in is None or stand_in.call_count == 1
    del sys.modules["patched_handlers"]


@contextmanager
def _unchanged() -> Iterator[None]:
    """Fail if the block changes what a process has once."""

    def state() -> list[object]:
        logger = logging.getLogger()
        return [
            list(sys.path),
            {name: module for name, module in sys.modules.items() if name.startswith("shop_")},
            sorted(thread.name for thread in threading.enumerate()),
            (list(logger.handlers), logger.level, logging.getLogger("asyncio").level),
            (structlog.is_configured(), dict(structlog.get_config())),
            dict(os.environ),
            os.getcwd(),
            (sys.stdout, sys.stderr),
        ]

    before = state()
    yield
    assert state() == before


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with _unchanged():
        _handle(_project(tmp_path, "first"), "first")


async def test_nothing_is_left_behind_of_a_test_that_fails(tmp_path: Path) -> None:
    path = _project(tmp_path, "first")
    tasks = asyncio.all_tasks()
    with _unchanged(), pytest.raises(ZeroDivisionError):
        await _fail_in_the_middle(path)
    assert asyncio.all_tasks() == tasks


async def _fail_in_the_middle(path: Path) -> None:
    async with running(path) as pipelines:
        await pipelines.publish("work", "first")
        raise ZeroDivisionError


def test_many_tests_at_the_same_time(tmp_path: Path) -> None:
    path = _project(tmp_path, "first")
    with _unchanged(), ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: _handle(path, "first"), range(40)))


def test_a_thousand_small_tests_take_seconds(tmp_path: Path) -> None:
    """Measured for a tenth of them, in time of this processor: others are busy, too."""
    path = write_project(tmp_path, PIPELINE, "async def do(item): pass\n")
    with running_sync(path):
        pass
    started = time.process_time()
    for _ in range(100):
        with running_sync(path) as pipelines:
            pipelines.publish("work", 1)
            pipelines.until_idle()
    assert time.process_time() - started < 1


def test_log_lines_go_to_the_logger_of_the_library_where_nobody_has_configured_ours(tmp_path: Path) -> None:
    path = write_project(tmp_path, PIPELINE, "def do(item): raise OSError('away')\n")
    code = f"""
        import logging
        from runner.testing import running_sync
        lines = []
        class Handler(logging.Handler):
            def emit(self, record): lines.append((record.name, record.levelname, record.getMessage()))
        logging.getLogger().addHandler(Handler())
        with running_sync({str(path)!r}) as pipelines:
            pipelines.publish("work", 1)
            pipelines.until_idle()
        (line,) = [line for line in lines if line[1] == "ERROR"]
        assert line[0] == "runner" and "message.dead_lettered" in line[2] and "away" in line[2], lines
        """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
