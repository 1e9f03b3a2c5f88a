"""Fixes of problems: what `runner validate --fix` writes is what the author meant, and nothing else changes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runner.config.loader import is_test_file, load, load_text
from runner.config.yaml_parser import read_text
from runner.errors import Fix, Problem
from runner.operations.fixes import CannotWrite, apply_fixes, difference, fixed_text
from runner.pipeline.spec_checks import check_names
from tests.wrong import update

FIXABLE = [case for case in update.cases() if case.with_suffix(".fixed").exists()]
SLIPS = update.cases("slips")


def problem(start: tuple[int, int], end: tuple[int, int], text: str, *, file: str = "") -> Problem:
    return Problem(code="x", message="m", file=file, line=start[0], column=start[1], fix=Fix(start, end, text))


@pytest.mark.parametrize("case", FIXABLE, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_a_case_is_fixed_as_the_file_beside_it_shows(case: Path) -> None:
    """To the byte, and the result has fewer problems."""
    said, problems = update.judged(case)
    text = update.fixed(case, problems)
    assert text.encode() == case.with_suffix(".fixed").read_bytes()
    if is_test_file(case):
        return
    before, after = (load_text(each, case, {}) for each in (read_text(case), text))
    is_better = len(after.problems) < len(before.problems) or len(check_names(after)[1]) < len(check_names(before)[1])
    assert "yaml-syntax" in said or is_better


def test_every_case_that_can_be_fixed_has_the_result_beside_it() -> None:
    assert len(FIXABLE) > 100
    assert {case.with_suffix(".fixed") for case in FIXABLE} == set(update.HERE.glob("*/*.fixed"))


@pytest.mark.parametrize("case", SLIPS, ids=lambda case: case.stem)
def test_a_slip_is_fixed_to_what_was_meant(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is valid at the end, and its spec is that of the file that the author had in mind."""
    shutil.copy(case, tmp_path)
    shutil.copy(case.parent / "shop.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    left, before, _ = apply_fixes(lambda: update.judged(tmp_path / case.name)[1])
    assert [item for item in left if item.severity == "error"] == []
    assert list(before) == [case.name]
    meant = load_text(case.with_suffix(".meant").read_text("utf-8"), Path(case.name), {})
    assert meant.spec is not None
    assert load(Path(case.name), {}).spec == meant.spec


def test_comments_and_line_breaks_stay(tmp_path: Path) -> None:
    """And a byte order mark."""
    file = tmp_path / "a.yaml"
    file.write_bytes("\ufeffversion: 1\r\nqueues:  # all\r\n  q: {durabel: true}  # one\r\n".encode())
    apply_fixes(lambda: load(file, {}).problems)
    assert file.read_bytes() == "\ufeffversion: 1\r\nqueues:  # all\r\n  q: {durable: true}  # one\r\n".encode()


def test_of_two_fixes_that_overlap_the_first_is_made() -> None:
    """The other one is made in the next round, if it is still needed."""
    found = [problem((1, 1), (1, 3), "AB"), problem((1, 2), (1, 4), "xx"), problem((1, 5), (1, 5), "!")]
    assert fixed_text("abcde\n", found) == ("ABcd!e\n", 2)


def test_fixes_that_do_not_help_are_taken_back(tmp_path: Path) -> None:
    """A file never gets worse."""
    file = tmp_path / "a.yaml"
    file.write_text("abc\n")

    def check() -> Sequence[Problem]:
        return [problem((1, 1), (1, 2), "x", file=str(file))]

    left, before, count = apply_fixes(check)
    assert (len(left), before, count, file.read_text()) == (1, {}, 0, "abc\n")


def test_a_fix_that_shows_other_problems_stays(tmp_path: Path) -> None:
    """Its own problem is gone. What it has hidden elsewhere stays to be said."""
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\nqueues:\n  changes: {typ: stream, dead_letter: x, overflow: drop-head}\n")
    left, _, count = apply_fixes(lambda: load(file, {}).problems)
    assert count == 1
    assert "type: stream" in file.read_text()
    assert "unknown-key" not in [item.code for item in left]


def test_a_fix_that_makes_an_error_of_its_own_is_taken_back_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("abc\nabc\n")

    def check() -> Sequence[Problem]:
        good = problem((1, 1), (1, 2), "x", file=str(file))
        bad = replace(problem((2, 1), (2, 2), "y", file=str(file)), path="other")
        new = Problem(code="z", message="worse", file=str(file), line=2, column=1)
        lines = file.read_text().splitlines()
        return [*([good] if lines[0] == "abc" else []), bad if lines[1] == "abc" else new]

    left, _, count = apply_fixes(check)
    assert (count, file.read_text(), [item.path for item in left]) == (1, "xbc\nabc\n", ["other"])


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("abc\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CannotWrite, match="cannot be written: permission denied"):
        apply_fixes(lambda: [problem((1, 1), (1, 2), "x", file=str(file))])


def test_the_difference_has_no_password(tmp_path: Path) -> None:
    """It is printed, and may land in the log of a build."""
    file = tmp_path / "a.yaml"
    file.write_text("broker: amqp://u:S3CR3T@h/\nname: b\n")
    shown = difference(str(file), "broker: amqp://u:S3CR3T@h/\nname: a\n")
    assert "-name: a\n+name: b\n" in shown
    assert "S3CR3T" not in shown


def test_no_fix_shows_a_password() -> None:
    """A change of a part with a password in it is left to its author."""
    text = "version: 1\nbrokr: amqp://u:S3CR3T@h/\nbroker:\n  host: h\n  user: u\n password: S3CR3T\n"
    for loaded in (
        load_text(text, Path("a.yaml"), {}),
        load_text("version: 1\nbroker: {url: amqp://u:S3CR3T@h/, heartbeat: 5 min}\n", Path("a.yaml"), {}),
    ):
        assert loaded.problems
        assert "S3CR3T" not in "".join(item.fix.text for item in loaded.problems if item.fix)
