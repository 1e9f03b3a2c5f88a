"""`runner schema`: the JSON Schema, on stdout or in a file."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from tests.process import RunnerProcess


async def test_the_schema_is_printed_or_written(tmp_path: Path) -> None:
    """The same on stdout and in a file, and a schema."""
    async with RunnerProcess("schema", cwd=tmp_path) as printed:
        assert await printed.wait() == 0, printed.stderr
    async with RunnerProcess("schema", "--output", "pipeline.schema.json", cwd=tmp_path) as written:
        assert await written.wait() == 0, written.stderr
    assert written.stdout == ""
    assert (tmp_path / "pipeline.schema.json").read_text("utf-8") == printed.stdout
    Draft202012Validator.check_schema(json.loads(printed.stdout))


async def test_a_file_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    """No traceback."""
    async with RunnerProcess("schema", "--output", "missing/a.json", cwd=tmp_path) as runner:
        assert await runner.wait() == 2
    assert "cannot write missing/a.json" in runner.stderr
    assert "Traceback" not in runner.stderr
