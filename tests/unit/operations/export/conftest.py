"""The folder of the exported pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.operations.export.exported import HANDLERS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline's folder, which is the current one; the module of another test's folder is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "exported_work", raising=False)
    (tmp_path / "exported_work.py").write_text(HANDLERS)
    return tmp_path
