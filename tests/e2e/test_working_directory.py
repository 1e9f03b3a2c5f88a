"""Handlers and libraries may change the working directory: what the pipeline names stays where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load
from runner.pipeline.resolver import resolve
from tests.project import Project, lines

PIPELINE = """
    version: 1
    queues: {UNIQUE.first: , UNIQUE.second: , UNIQUE.third: }
    producers:
      start: {handler: work:start, to: UNIQUE.first}
      rows: {file: rows.txt, to: UNIQUE.third, rate: 2/s}
    subscribers:
      leave: {from: UNIQUE.first, handler: work:leave, to: UNIQUE.second}
      fail: {from: UNIQUE.second, handler: work:fail, retry: {attempts: 2, backoff: fixed, delay: 10ms}}
      apart: {from: UNIQUE.third, handler: work:apart, run_in: process}
"""
HANDLERS = """
    import os, tempfile

    def start(): return ["go"]

    def leave(order: str) -> str:
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        if GONE: os.rmdir(folder)
        note("left")
        return "next"

    def fail(order: str) -> None:
        note("failed")
        raise RuntimeError("here")

    def apart(row: str) -> None: note(row)
"""


@pytest.mark.parametrize("is_gone", [False, True], ids=["another", "gone"])
async def test_a_pipeline_goes_on_in_another_working_directory(project: Project, is_gone: bool) -> None:
    """Failures are reported, files are read, and processes are started, which Python does in no folder that is gone."""
    project.pipeline(PIPELINE.replace(", run_in: process", "") if is_gone else PIPELINE)
    project.handlers(HANDLERS.replace("GONE", str(is_gone)))
    (project.folder / "rows.txt").write_text('"one"\n"two"\n"three"\n')
    runner = await project.up_until_idle()
    assert project.ledger.counts() == {"left": 1, "failed": 2, "one": 1, "two": 1, "three": 1}
    (dead,) = lines(runner, "message.dead_lettered")
    assert dead["error"] == "here"
    assert "work.py" in dead["at"]


def test_the_files_of_tls_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read at each connection. They are relative to the pipeline's file, also where its path is relative."""
    text = 'version: 1\nbroker: {host: localhost, tls: {ca: ca.pem, cert: "../c.pem", key: /k.pem}}\n'
    (tmp_path / "below").mkdir()
    for file in ("below/ca.pem", "c.pem"):
        (tmp_path / file).touch()
    (tmp_path / "below" / "a.yaml").write_text(text + "queues: {q: }\n")
    monkeypatch.chdir(tmp_path)
    resolved = resolve(load(Path("below/a.yaml"), {}))
    assert resolved.pipeline is not None
    tls = resolved.pipeline.broker.tls
    assert tls is not None
    assert (tls.ca, tls.cert, tls.key) == (
        tmp_path / "below" / "ca.pem",
        tmp_path / "below" / ".." / "c.pem",
        Path("/k.pem"),
    )
