"""What `runner export asyncapi` writes is accepted by AsyncAPI's own parser, without errors and warnings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ROOT
from tests.unit.operations.export.test_asyncapi import EXAMPLES, shop

__all__ = ["shop"]

PARSER = Path(sys.prefix) / "asyncapi"
CHECK = """
import { readFileSync } from "node:fs";
import asyncapi from "@asyncapi/parser";
const { document, diagnostics } = await new asyncapi.Parser().parse(readFileSync(process.argv[2], "utf8"));
const found = diagnostics.map(({ severity, code, message }) => ({ severity, code, message }));
console.log(JSON.stringify({ isValid: document !== undefined, found }));
"""
WARNING = 1  # 0 is an error, 2 information: that there is a newer version of AsyncAPI

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or not (PARSER / "node_modules").is_dir(),
        reason="AsyncAPI's parser is not installed: `make slow` installs it",
    ),
]


def judged(pipelines: list[Path], folder: Path) -> list[dict[str, object]]:
    """Return the errors and warnings that the parser has for the document of some pipelines."""
    text = folder / "document.yaml"
    command: list[str | Path] = [sys.executable, "-m", "runner", "export", "asyncapi", *pipelines, "--output", text]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    (PARSER / "check.mjs").write_text(CHECK)
    done = subprocess.run(["node", PARSER / "check.mjs", text], capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["isValid"], answer
    return [each for each in answer["found"] if each["severity"] <= WARNING]


@pytest.mark.parametrize("pipeline", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_accepted(pipeline: Path, tmp_path: Path) -> None:
    assert judged([pipeline], tmp_path) == []


def test_several_pipelines_are_accepted(tmp_path: Path) -> None:
    assert judged(EXAMPLES, tmp_path) == []


def test_odd_names_and_schemas_in_files_are_accepted(shop: Path, tmp_path: Path) -> None:
    assert judged([shop], tmp_path) == []


def test_what_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    """The judge does judge: a reference to nothing is an error."""
    text = (ROOT / "docs" / "reference" / "fulfilment.asyncapi.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("#/channels/shipping", "#/channels/nothing"))
    (PARSER / "check.mjs").write_text(CHECK)
    done = subprocess.run(["node", PARSER / "check.mjs", tmp_path / "wrong.yaml"], capture_output=True, text=True)
    assert any(each["severity"] == 0 for each in json.loads(done.stdout)["found"])
