"""Each unit test starts with the same log, whatever ran before it in its process."""

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from runner import log


@pytest.fixture(autouse=True)
def _log() -> None:
    """Configure the log into memory: what a test needs of it must not come from a test that ran earlier."""
    log.configure(format="json", stream=io.StringIO())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; a test that imports from it finds there and among what is installed, and nowhere else."""
    installed = [entry for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix))]
    monkeypatch.setattr(sys, "path", installed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undo what a test does to structlog, logging and sys.stdout."""
    stdout, root = sys.stdout, logging.getLogger()
    handlers = list(root.handlers)
    yield
    sys.stdout = stdout
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()
    log.configure()
    root.handlers[:] = handlers
    for name in logging.root.manager.loggerDict:  # dictConfig disables all there are
        logging.getLogger(name).disabled = False
