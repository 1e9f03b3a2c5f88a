"""Recognizes files of other tools, so that one problem says so in place of one for each of their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from runner.config.foreign_pipelines import pipeline_for, with_values
from runner.config.positions import Lines
from runner.errors import Problem
from runner.redaction import mask_passwords


class Tool(NamedTuple):
    """A kind of file: its name, a pattern for each thing that it has, what to do, and where it has its values."""

    name: str
    patterns: list[str]
    help: str
    rows: list[str]


_UNKNOWN: Final = {
    r"module:": "`module:` stands for the module with your functions",
    r"//user:\*\*\*": "user:*** stands for your user and password",
    r"(?<!//user:)\*\*\*": "*** stands for your password",
}
"""What the pipeline for a file has in place of what is not in the file, or secret."""
_MAX_LEFT_OUT: Final = 6
"""How many keys are named that have no place in the pipeline for a file."""
_FENCED: Final = re.compile(r"^```ya?ml\s*\n((?:(?!```).*\n)+)```\s*$", re.MULTILINE)
_PROSE: Final = re.compile(r"^(?!#)\S.*$", re.MULTILINE)
"""A line of a text that is no heading, which YAML reads as a comment."""
_OF_A_COMMAND: Final = re.compile(r"\brunner[\"', ]+(?:up|validate|dev|test|plan|apply)[\"', ]+([\w./-]*\w)")
"""The pipeline that a command in a file of another tool names."""
_OURS: Final = re.compile(r"^[\"']?(?:queues|subscribers|producers|events)[\"']?\s*[:：]", re.MULTILINE)


def tools() -> Iterator[Tool]:
    """Yield the entries of the data file."""
    for entry in files("runner.config").joinpath("foreign_files.txt").read_text("utf-8").split("\n\n")[1:]:
        name, *lines = entry.splitlines()
        patterns = [_pattern(line.strip()) for line in lines if not line.startswith(("  >", "  ="))]
        rows = [line[4:] for line in lines if line.startswith("  =")]
        yield Tool(name, patterns, " ".join(line[4:] for line in lines if line.startswith("  >")), rows)


def _pattern(line: str) -> str:
    """Return the pattern of a line: `key NAMES` is one of some keys at the top level of YAML or in a map of JSON."""
    keys = line.removeprefix("key ")
    names = keys.replace(" ", "|")
    return line if keys == line else rf"(?:^[\"']?|[{{,]\s*\")(?:{names})[\"']?\s*:"


def foreign_file(lines: Lines, folder: Path = Path()) -> Problem | None:
    """Return the problem of a file of another tool, None for a file with a section of a pipeline at the top level.

    Its help has lines: the first one is what the parts of such a file become, the others are the pipeline for this one.
    `folder` has the modules of handlers.
    """
    text = lines.text.replace("\r\n", "\n")
    if (fenced := _FENCED.search(text)) and _PROSE.search(_FENCED.sub("", text)):
        pipeline = mask_passwords(fenced[1].rstrip())
        help_ = f"a pipeline is a *.yaml file of its own: write only what stands between the fences:\n{pipeline}"
        return lines.span(0, 1).problem("foreign-file", "this looks like a Markdown text, not a pipeline", help_)
    if _OURS.search(text):
        return None
    for tool in tools():
        found = [re.search(pattern, text, re.MULTILINE) for pattern in tool.patterns]
        if all(found) and found[0] is not None:
            number = text.count("\n", 0, found[0].start() + len(found[0][0]) - len(found[0][0].lstrip())) + 1
            start = lines.index((number, 1))
            span = lines.span(start, start + len(found[0][0].strip().rstrip(":")))
            message = f"this looks like {tool.name}, not a pipeline"
            if own := _OF_A_COMMAND.search(text):
                return span.problem("foreign-file", message, f"give the pipeline's own file: {own[1]}")
            pipeline, left_out = pipeline_for(tool.rows, text, folder) if tool.rows else ("", [])
            notes = [note for mark, note in _UNKNOWN.items() if re.search(mark, pipeline)]
            if left_out:
                more = f" and {len(left_out) - _MAX_LEFT_OUT} more" if len(left_out) > _MAX_LEFT_OUT else ""
                notes.append(f"it leaves out {', '.join(left_out[:_MAX_LEFT_OUT])}{more}")
            said = f" ({'; '.join(notes)})" if notes else ""
            introduction = f"write this pipeline for it{said}:"
            about = with_values(tool.help, text)
            help_ = f"{about}\n{introduction}\n{pipeline}" if pipeline else about
            return span.problem("foreign-file", message, help_)
    return None
