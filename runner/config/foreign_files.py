"""Recognizes files of other tools, so that one problem says so in place of one for each of their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Final, NamedTuple

from runner.config.positions import Lines
from runner.errors import Problem


class Tool(NamedTuple):
    """A kind of file: its name, a pattern for each thing that it has, and what to do with it."""

    name: str
    patterns: list[str]
    help: str


_OURS: Final = re.compile(r"^[\"']?(?:queues|subscribers|producers|events)[\"']?\s*[:：]", re.MULTILINE)


def tools() -> Iterator[Tool]:
    """Yield the entries of the data file."""
    for entry in files("runner.config").joinpath("foreign_files.txt").read_text("utf-8").split("\n\n")[1:]:
        name, *lines = entry.splitlines()
        patterns = [_pattern(line.strip()) for line in lines if not line.startswith("  >")]
        yield Tool(name, patterns, " ".join(line[4:] for line in lines if line.startswith("  >")))


def _pattern(line: str) -> str:
    """Return the pattern of a line: `key NAMES` is one of some keys at the top level of YAML or in a map of JSON."""
    keys = line.removeprefix("key ")
    names = keys.replace(" ", "|")
    return line if keys == line else rf"(?:^[\"']?|[{{,]\s*\")(?:{names})[\"']?\s*:"


def foreign_file(lines: Lines) -> Problem | None:
    """Return the problem of a file of another tool, None for a file with a section of a pipeline at the top level."""
    text = lines.text.replace("\r\n", "\n")
    if _OURS.search(text):
        return None
    for tool in tools():
        found = [re.search(pattern, text, re.MULTILINE) for pattern in tool.patterns]
        if all(found) and found[0] is not None:
            number = text.count("\n", 0, found[0].start() + len(found[0][0]) - len(found[0][0].lstrip())) + 1
            start = lines.index((number, 1))
            span = lines.span(start, start + len(found[0][0].strip().rstrip(":")))
            message = f"this looks like {tool.name}, not a pipeline"
            return span.problem("foreign-file", message, tool.help)
    return None
