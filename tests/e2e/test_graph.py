"""`runner graph`: every format, without importing anybody's handlers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.process import ROOT, RunnerProcess


@pytest.mark.parametrize("style", ["text", "mermaid", "dot", "svg", "json"])
async def test_a_folder_is_one_picture(style: str) -> None:
    """stdout is the picture, stderr is empty."""
    async with RunnerProcess("graph", "pipelines", "--format", style, cwd=ROOT) as runner:
        assert await runner.wait() == 0, runner.stderr
    assert runner.stderr == ""
    for name in ("place_orders", "orderPlaced", "ship_order", "shipping"):
        assert name in runner.stdout
    if style == "json":
        files = {path for path in (ROOT / "pipelines").glob("*.yaml") if not path.name.endswith(".test.yaml")}
        assert len(json.loads(runner.stdout)["pipelines"]) == len(files)
    if style == "svg":
        assert ElementTree.fromstring(runner.stdout).tag == "{http://www.w3.org/2000/svg}svg"


async def test_handlers_are_not_imported(tmp_path: Path) -> None:
    """They need not even exist."""
    (tmp_path / "pipeline.yaml").write_text(
        "version: 1\nqueues: {q: }\nproducers: {p: {handler: 'bomb:f', to: q}}\n"
        "subscribers: {s: {from: q, handler: 'no:f'}}\n"
    )
    (tmp_path / "bomb.py").write_text("raise SystemExit('imported')\n")
    async with RunnerProcess("graph", "pipeline.yaml", cwd=tmp_path) as runner:
        assert await runner.wait() == 0, runner.stderr
    assert re.search(r"p +producer · once\n└→ q +queue\n   └→ s +subscriber", runner.stdout)


async def test_an_invalid_pipeline_has_no_picture(tmp_path: Path) -> None:
    """Exit code 78, and the problems on stderr."""
    (tmp_path / "pipeline.yaml").write_text("version: 1\nproducers: {p: {handler: 'a:f', to: nowhere}}\n")
    async with RunnerProcess("graph", "pipeline.yaml", "--format", "svg", cwd=tmp_path) as runner:
        assert await runner.wait() == 78
    assert runner.stdout == ""
    assert 'no queue or event is called "nowhere"' in runner.stderr
