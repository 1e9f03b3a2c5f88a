"""Applies the fixes of problems to pipeline files."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from runner.config.diagnostics import display_path
from runner.config.positions import Edit, Lines, apply_edits
from runner.config.yaml_parser import read_text
from runner.errors import Problem, RunnerError
from runner.redaction import mask_passwords

_MAX_ROUNDS = 10
"""A fix can show problems that it has hidden."""


class CannotWrite(RunnerError):
    """A file with fixes cannot be written."""

    exit_code = 74


def apply_fixes(check: Callable[[], Sequence[Problem]]) -> tuple[Sequence[Problem], dict[str, str], int]:
    """Write the fixes of all problems into their files, as long as that leaves fewer problems.

    `check` returns the problems of the files as they are. Returns those that remain, the text that each changed file
    had before, and the number of fixes. Comments and line breaks stay as they are. Raises CannotWrite.
    """
    before: dict[str, str] = {}
    problems, count = check(), 0
    for _ in range(_MAX_ROUNDS):
        changed, applied = _changed_files(problems)
        if not changed:
            break
        previous = {file: _read(file) for file in changed}
        for file, text in changed.items():
            _write(file, text)
        left = check()
        if not _is_better(left, problems):
            for file, text in previous.items():
                _write(file, text)
            break
        before = {**previous, **before}
        problems, count = left, count + applied
    return problems, before, count


def _is_better(left: Sequence[Problem], problems: Sequence[Problem]) -> bool:
    """Whether the fixes have helped: a file that is YAML now may show many problems that nobody could see before."""
    hidden = any(problem.code == "yaml-syntax" for problem in problems)
    return len(left) < len(problems) or (hidden and not any(problem.code == "yaml-syntax" for problem in left))


def fixed_text(text: str, problems: Iterable[Problem]) -> tuple[str, int]:
    """Return a text with the fixes of its problems, and their number. Of two that overlap, the first is made."""
    lines = Lines(text)
    edits: list[Edit] = []
    fixes = {problem.fix for problem in problems if problem.fix is not None}
    for fix in sorted(fixes, key=lambda fix: (fix.start, fix.end)):
        edit = Edit(lines.index(fix.start), lines.index(fix.end), fix.text)
        if not edits or edit.start > edits[-1].end or (edit.start == edits[-1].end and edit.start > edits[-1].start):
            edits.append(edit)
    return apply_edits(text, edits), len(edits)


def difference(file: str, before: str) -> str:
    """Return what has changed in a file as a unified diff, passwords masked."""
    name = display_path(file)
    old, new = (mask_passwords(text).splitlines(keepends=True) for text in (before, _read(file)))
    lines = difflib.unified_diff(old, new, name, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _changed_files(problems: Sequence[Problem]) -> tuple[dict[str, str], int]:
    changed, count = {}, 0
    for file in dict.fromkeys(problem.file for problem in problems if problem.fix is not None):
        changed[file], applied = fixed_text(_read(file), (problem for problem in problems if problem.file == file))
        count += applied
    return changed, count


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
