"""Writes problems as text for people (`full`, `concise`), as JSON and as annotations for GitHub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from runner.config.code_frame import code_frame, escape
from runner.config.positions import LINE_BREAK, OPTION
from runner.errors import Fix, PipelineInvalid, Problem
from runner.redaction import mask_passwords
from runner.units import pluralize

_TEST_FILES = (".test.yaml", ".test.yml")
"""The ends of the names of files that `runner validate` does not check."""

_BOLD, _RED, _YELLOW = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m"
_BLUE, _CYAN, _RESET = "\x1b[1;34m", "\x1b[1;36m", "\x1b[0m"


def render(problems: Iterable[Problem], style: str, *, colour: bool = False) -> str:
    """Return problems in the style `concise`, `json`, `github` or `full`; "" for none, else with a final line break."""
    match style:
        case "concise":
            return concise(problems)
        case "json":
            return as_json(problems)
        case "github":
            return github(problems)
        case _:
            return full(problems, colour=colour)


def full(problems: Iterable[Problem], *, colour: bool = False) -> str:
    """Return each problem with its line of the file, carets under the wrong part, and the help."""
    files = _Files()
    paint = _paint if colour else _plain
    return "\n".join(_block(problem, files, paint) for problem in in_order(problems))


def concise(problems: Iterable[Problem]) -> str:
    """Return one line for each problem."""
    return "".join(f"{_concise(problem)}\n" for problem in in_order(problems))


def as_json(problems: Iterable[Problem]) -> str:
    """Return a JSON list of problems."""
    items = [
        {
            "file": display_path(problem.file),
            "line": problem.line,
            "column": problem.column,
            "end_line": problem.line,
            "end_column": problem.column + problem.length if problem.line else 0,
            "code": problem.code,
            "severity": problem.severity,
            "path": problem.path,
            "message": problem.message,
            "help": problem.help,
            "page": f"errors.md#{problem.code}",
            "fix": _fix(problem.fix),
        }
        for problem in in_order(problems)
    ]
    return json.dumps(items, indent=2) + "\n"


def _fix(fix: Fix | None) -> dict[str, object] | None:
    if fix is None:
        return None
    start, end = ({"line": line, "column": column} for line, column in (fix.start, fix.end))
    return {"start": start, "end": end, "text": fix.text}


def github(problems: Iterable[Problem]) -> str:
    """Return workflow commands. GitHub shows them beside the lines of a pull request.

    Source: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    return "".join(f"{_github(problem)}\n" for problem in in_order(problems))


def count(problems: Sequence[Problem]) -> str:
    """Return the number of problems and their file, as in `2 errors, 1 warning in pipelines/orders.yaml`."""
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    parts = [pluralize(errors, "error")] if errors or not warnings else []
    parts += [pluralize(warnings, "warning")] if warnings else []
    files = sorted({display_path(problem.file) for problem in problems if problem.file})
    where = f" in {escape(files[0])}" if len(files) == 1 else f" in {len(files)} files" if files else ""
    return ", ".join(parts) + where


def next_steps(problems: Sequence[Problem]) -> str:
    """Return the commands that help with problems: to explain the first error, and to mend what can be mended."""
    found = sorted(in_order(problems), key=lambda problem: problem.severity != "error")
    can_be_fixed = [problem.fix is not None and not problem.file.endswith(_TEST_FILES) for problem in found]
    errors = sum(problem.severity == "error" or can for problem, can in zip(found, can_be_fixed, strict=True))
    mended = f"`runner validate --fix` mends {sum(can_be_fixed)} of {errors}; " if any(can_be_fixed) else ""
    return f"{mended}`runner explain {found[0].code}` says more"


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems sorted by file, line and column."""
    found = list(problems)
    files = {file: display_path(file) for file in {problem.file for problem in found}}
    return sorted(found, key=lambda problem: (files[problem.file], problem.line, problem.column))


def display_path(file: str | Path) -> str:
    """Return a path for people: relative to the current folder if it is below it, and without the password of a URL.

    Of a `--set` option, return its key: the value may be secret.
    """
    file = mask_passwords(str(file))  # a URL was given in place of a file
    if file.startswith(OPTION):
        return file.partition("=")[0]
    if not os.path.isabs(file):
        return file
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return file


def display_line(file: str, line: int) -> str:
    """Return a file and a line, as in `orders.yaml:14`; an option has no lines."""
    return display_path(file) if file.startswith(OPTION) else f"{display_path(file)}:{line}"


Paint = Callable[[str, str], str]


def _plain(text: str, colour: str) -> str:
    return text


def _paint(text: str, colour: str) -> str:
    return f"{colour}{text}{_RESET}"


def _block(problem: Problem, files: _Files, paint: Paint) -> str:
    colour = _RED if problem.severity == "error" else _YELLOW
    lines = [f"{paint(f'{problem.severity}[{problem.code}]', colour)}: {paint(_subject(problem), _BOLD)}"]
    margin = " " * len(str(problem.line or 1))
    if problem.file:
        lines.append(f"{margin}{paint('-->', _BLUE)} {_location(problem)}")
    line = files.line(problem.file, problem.line)
    if line is not None:
        shown, carets = code_frame(line, problem.column, problem.length)
        bar = paint("|", _BLUE)
        lines.append(f"{margin} {bar}")
        lines.append(f"{paint(str(problem.line), _BLUE)} {bar} {shown}")
        lines.append(f"{margin} {bar} {paint(carets, colour)}")
    if problem.help:
        first, *more = problem.help.split("\n")
        lines.append(f"{margin} {paint('= help:', _CYAN)} {escape(first)}")
        lines += [f"{margin}   {escape(line)}" for line in more]
    return "\n".join(lines) + "\n"


def _concise(problem: Problem) -> str:
    where = f"{_location(problem)}: " if problem.file else ""
    help_ = f"; {escape(problem.help.splitlines()[0])}" if problem.help else ""
    return f"{where}{problem.severity}[{problem.code}] {_subject(problem)}{help_}"


def _github(problem: Problem) -> str:
    place: dict[str, object] = {}
    if not problem.file.startswith(OPTION):  # GitHub shows annotations beside files only
        place = {"file": display_path(problem.file), "line": problem.line, "col": problem.column}
        place |= {"endLine": problem.line, "endColumn": problem.line and problem.column + problem.length}
    is_option = problem.file.startswith(OPTION)
    properties = {**place, "title": problem.code}
    given = ",".join(f"{key}={_github_property(str(value))}" for key, value in properties.items() if value)
    help_ = f"; {problem.help}" if problem.help else ""
    where = f"{_location(problem)}: " if is_option else ""
    shown = "\n".join(map(escape, help_.split("\n")))
    return f"::{problem.severity} {given}::{_github_text(where + _subject(problem) + shown)}"


def _github_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _github_property(text: str) -> str:
    return _github_text(text).replace(":", "%3A").replace(",", "%2C")


def _subject(problem: Problem) -> str:
    return escape(f"{problem.path}: {problem.message}" if problem.path else problem.message)


def _location(problem: Problem) -> str:
    place = f":{problem.line}:{problem.column}" if problem.line and not problem.file.startswith(OPTION) else ""
    return escape(display_path(problem.file)) + place


class _Files:
    """The lines of the files that have problems. Each file is read once."""

    _MAX_BYTES: Final = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def line(self, file: str, number: int) -> str | None:
        """Return a line of a file, None if it does not exist."""
        if not file or number < 1:
            return None
        if file not in self._lines:
            self._lines[file] = self._read(file)
        lines = self._lines[file]
        return lines[number - 1] if number <= len(lines) else None

    def _read(self, file: str) -> list[str]:
        if file.startswith(OPTION):
            return LINE_BREAK.split(file)
        try:
            if not Path(file).is_file():
                return []
            with open(file, "rb") as stream:
                text = stream.read(self._MAX_BYTES).decode("utf-8-sig", "replace")
        except (OSError, ValueError):  # deleted since it was read: the problem is shown without its line
            return []
        return LINE_BREAK.split(text)


def with_text(problems: Sequence[Problem]) -> PipelineInvalid:
    """Return the error for a program, where no command shows its problems."""
    return PipelineInvalid(problems, f"{count(problems)}\n{full(problems)}".rstrip())
