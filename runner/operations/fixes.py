"""Applies the fixes of problems to pipeline files."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from runner.config.diagnostics import display_path
from runner.config.positions import Edit, Lines, apply_edits
from runner.config.yaml_parser import read_text
from runner.errors import Fix, Problem, RunnerError
from runner.redaction import mask_passwords

_MAX_ROUNDS = 10
"""A fix can show problems that it has hidden."""


class CannotWrite(RunnerError):
    """A file with fixes cannot be written."""

    exit_code = 74


def apply_fixes(check: Callable[[], Sequence[Problem]]) -> tuple[Sequence[Problem], dict[str, str], int]:
    """Write the fixes of all problems into their files, but for those that mend nothing or make an error of their own.

    `check` returns the problems of the files as they are. Returns those that remain, the text that each changed file
    had before, and the number of fixes. Comments and line breaks stay as they are. Raises CannotWrite.
    """
    before: dict[str, str] = {}
    refused: set[Problem] = set()
    problems, count = check(), 0
    for _ in range(_MAX_ROUNDS):
        fixed = {
            file: _not_overlapping(problem for problem in problems if problem.file == file and problem not in refused)
            for file in dict.fromkeys(problem.file for problem in problems if problem.fix is not None)
        }
        previous = {file: _read(file) for file, found in fixed.items() if found}
        if not previous:
            break
        for file, text in previous.items():
            _write(file, fixed_text(text, fixed[file])[0])
        left = check()
        made = [problem for found in fixed.values() for problem in found]
        if useless := _useless(made, problems, left):
            refused |= useless
            for file, text in previous.items():
                _write(file, text)
            continue
        before = {**previous, **before}
        problems, count = left, count + len({(problem.file, problem.fix) for problem in made})
    return problems, before, count


def _useless(fixed: Iterable[Problem], problems: Iterable[Problem], left: Iterable[Problem]) -> set[Problem]:
    """Return the problems that are still there, or whose fix made a new error where it was written.

    What a fix brings to light elsewhere says nothing against it, nor what was hidden by an error of YAML's syntax.
    """
    counts, counts_left = Counter(map(_identity, problems)), Counter(map(_identity, left))
    new = [problem for problem in left if problem.severity == "error" and _identity(problem) not in counts]
    return {
        problem
        for problem in fixed
        if counts_left[_identity(problem)] >= counts[_identity(problem)]
        or any(_is_made_by(problem, error) for error in new)
    }


def _identity(problem: Problem) -> tuple[str, ...]:
    """Return what a problem has in common with itself after lines above it have changed."""
    return problem.file, problem.code, problem.path, problem.message


def _is_made_by(problem: Problem, error: Problem) -> bool:
    """Whether an error is at the text that the fix of a problem has written."""
    was_hidden = problem.code == "yaml-syntax" and error.code != "yaml-syntax"
    if problem.fix is None or error.file != problem.file or was_hidden:
        return False
    line, column = problem.fix.start
    return error.line == line and column <= error.column < column + max(1, len(problem.fix.text))


def fixed_text(text: str, problems: Iterable[Problem]) -> tuple[str, int]:
    """Return a text with the fixes of its problems, and their number. Of two that overlap, the first is made."""
    lines = Lines(text)
    fixes = dict.fromkeys(problem.fix for problem in _not_overlapping(problems) if problem.fix is not None)
    edits = [Edit(lines.index(fix.start), lines.index(fix.end), fix.text) for fix in fixes]
    return apply_edits(text, edits), len(edits)


def _not_overlapping(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems with fixes, in their order. Of two that overlap, the first stays; equal ones both do."""
    kept: list[tuple[Fix, Problem]] = []
    found = [(problem.fix, problem) for problem in problems if problem.fix is not None]
    for fix, problem in sorted(found, key=lambda item: (item[0].start, item[0].end)):
        last = kept[-1][0] if kept else None
        if last is None or last == fix or fix.start > last.end or (fix.start == last.end and fix.start > last.start):
            kept.append((fix, problem))
    return [problem for _, problem in kept]


def difference(file: str, before: str) -> str:
    """Return what has changed in a file as a unified diff, passwords masked."""
    name = display_path(file)
    old, new = (mask_passwords(text).splitlines(keepends=True) for text in (before, _read(file)))
    lines = difflib.unified_diff(old, new, name, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _read(file: str) -> str:
    return read_text(Path(file))


def _write(file: str, text: str) -> None:
    """Write a text as it was read: with its line breaks, and the byte order mark if the file has one."""
    try:
        with open(file, "r+b") as stream:
            mark = stream.read(3)
            stream.seek(0)
            stream.write((mark if mark == b"\xef\xbb\xbf" else b"") + text.encode("utf-8"))
            stream.truncate()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CannotWrite(f"{display_path(file)} cannot be written: {reason}", "check its permissions") from None
