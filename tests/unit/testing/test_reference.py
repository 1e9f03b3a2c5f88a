"""docs/reference/testing.md has everything that tests in Python can use, and nothing else."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from runner import testing
from runner.testing import Record, Replacement, Running, RunningSync, running, running_sync

PAGE = (Path(__file__).resolve().parents[3] / "docs/reference/testing.md").read_text("utf-8")


def _rows(heading: str) -> list[str]:
    """Return the names in the first column of the table below a heading, without arguments."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[1:]
    return [name.partition("(")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_arguments() -> None:
    for function in (running, running_sync):
        assert _rows("running") == list(inspect.signature(function).parameters)[1:]


def test_the_methods() -> None:
    for cls in (Running, RunningSync):
        public = {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}
        assert set(_rows("Methods")) == public


def test_the_fields_of_a_record() -> None:
    assert _rows("Record") == [field.name for field in dataclasses.fields(Record)]


def test_the_arguments_of_a_replacement() -> None:
    signature = str(inspect.signature(Replacement)).partition(" ->")[0]
    names = re.findall(r"(\w+)=", PAGE.split("`Replacement(*, ")[1].partition(")`")[0])
    assert names == re.findall(r"(\w+):", signature)


def test_the_names() -> None:
    imported = PAGE.split("from runner.testing import ")[1].partition("\n")[0].split(", ")
    assert set(testing.__all__) == {*imported, "Running", "RunningSync"}
