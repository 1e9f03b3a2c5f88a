"""Every wrong pipeline of tests/wrong says exactly what stands beside it: each problem, at its place, in our words."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel
from runner.config.suite_spec import SuiteSpec
from runner.operations.explanations import explanations
from tests.wrong import update
from tests.wrong.foreign import foreign_words

CASES = update.cases()
IDS = [str(case.relative_to(update.HERE)) for case in CASES]
LEAST = 160
SEVERAL = range(5, 20)

LINE = re.compile(
    r"(?:--set \S+|(?P<file>[^:]+):(?P<line>[1-9]\d*):(?P<column>[1-9]\d*)): "
    r"(?P<severity>error|warning)\[(?P<code>[a-z0-9-]+)\] (?:(?P<path>\S+?): )?(?P<message>.+?); (?P<help>.+)"
)

CODE = re.compile(r"(?P<severity>error|warning)\[(?P<code>[a-z0-9-]+)\]")

NOT_IN_A_FILE = {
    "breaking-change": "a difference between two versions, of `runner diff`",
    "safe-change": "a difference between two versions, of `runner diff`",
    "unreadable-file": "the reason is in the file system: no permission, a broken disk",
    "missing-extra": "a library is not installed; the tests have all of them",
    "wrong-value": "what is said of an error that has no words of its own; each has some",
    "unmet-expectation": "the file is right, and the pipelines do something else",
    "unknown-exception": "in a pipeline this is said with bad-import-path, before anything is imported",
}
"""Codes that no wrong text shows."""

ANY_VALUE = {"payload"}
"""Keys whose value is never wrong by itself."""

STILL_FOREIGN: set[str] = set()
"""Expected lines that are not all our own words."""


def lines(case: Path) -> list[str]:
    return update.expected(case).read_text("utf-8").splitlines()


ALL = [(str(update.expected(case).relative_to(update.HERE)), line) for case in CASES for line in lines(case)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_wrong_pipeline_says_what_stands_beside_it(case: Path) -> None:
    """To the letter: `python -m tests.wrong.update` writes anew what was changed on purpose."""
    assert update.said(case) == update.expected(case).read_text("utf-8")


def test_there_are_many_wrong_pipelines_and_each_has_its_text() -> None:
    """None is right by accident, and no text has lost its pipeline."""
    assert len(CASES) >= LEAST
    assert [name for name, case in zip(IDS, CASES, strict=True) if not lines(case)] == []
    assert {update.expected(case) for case in CASES} == set(update.HERE.glob("*/*.txt"))


def test_checking_leaves_nothing_behind() -> None:
    """Neither the folder, nor the import path, nor modules: the next case may have others of the same names."""
    before = Path.cwd(), list(sys.path), set(sys.modules)
    update.said(update.HERE / "imports" / "everything.yaml")
    after = Path.cwd(), list(sys.path), {name for name in sys.modules if name not in before[2] and "wrong" in name}
    assert after == (before[0], before[1], set())
    assert "shop" not in sys.modules


def test_every_line_has_a_place_a_code_and_a_next_step() -> None:
    """`file:line:column: severity[code] path: message; help`, or an option in place of the file.

    Only a folder without pipelines has no place.
    """
    shapeless = [(name, line) for name, line in ALL if LINE.fullmatch(line) is None]
    assert [name for name, _ in shapeless] == ["together/no_pipelines.txt"]
    assert shapeless[0][1].startswith("no_pipelines: error[no-pipelines] ")


def test_every_place_is_in_its_file() -> None:
    """On a line that there is, and on a character of it (or right behind the last one)."""
    outside = []
    for case in CASES:
        for line in lines(case):
            if (match := LINE.fullmatch(line)) and match["file"]:
                text = (case.parent / match["file"]).read_bytes().decode("utf-8-sig", "replace")
                found = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
                number, column = int(match["line"]), int(match["column"])
                if number > len(found) or column > max(1, len(found[number - 1]) + 1):
                    outside.append(line)
    assert outside == []


def test_no_words_of_libraries_are_in_it() -> None:
    """Texts of pydantic, PyYAML and Python are not shown, except the last line of the author's own traceback."""
    own = [(name, line) for name, line in ALL if "error[module-failed]" not in line]
    assert {name for name, line in own if foreign_words(line)} == STILL_FOREIGN


def test_no_secret_and_no_folder_of_this_machine_is_in_it() -> None:
    """Nor an address in memory: the texts are the same everywhere."""
    assert [line for _, line in ALL if "S3CR3T" in line or "hunter2" in line] == []
    assert [line for _, line in ALL if str(update.HERE) in line or os.path.expanduser("~/") in line] == []


def test_a_problem_is_said_once() -> None:
    """No two lines of a pipeline are the same."""
    assert [case for case in CASES if len(set(lines(case))) < len(lines(case))] == []


def test_every_code_that_a_file_can_show_is_shown() -> None:
    """Each explanation of `runner explain` has a pipeline that leads to it, and warnings are warnings."""
    shown = {(match["code"], match["severity"]) for _, line in ALL if (match := CODE.search(line))}
    codes = explanations()
    assert {code for code, _ in shown} == set(codes) - set(NOT_IN_A_FILE)
    assert {code for code, severity in shown if severity == "warning"} == {
        code for code, entry in codes.items() if "(a warning)" in entry.text
    }


def test_every_key_of_the_language_has_a_wrong_value_and_a_misspelling() -> None:
    """In the groups `types` and `keys`, and those of test files in `testfiles`."""
    keys = {key for model in _models() for key in _written_keys(model)}
    groups = {key: [line for name, line in ALL if name.startswith((key, "testfiles/"))] for key in ("types/", "keys/")}
    wrong = {match["path"] for line in groups["types/"] if (match := LINE.fullmatch(line))}
    assert {part for path in wrong if path for part in path.split(".")} >= keys - ANY_VALUE
    said = "\n".join(groups["keys/"])
    found = re.findall(r'did you mean "(\w+)"\?|write [`"](\w+):|under "(\w+)", which', said)
    meant = {key for groups_of_one in found for key in groups_of_one}
    assert keys - meant - {"urls", "ca", "cert", "queue", "producer", "subscriber"} == set()


def _models() -> list[type[SpecModel]]:
    found: list[type[SpecModel]] = [SpecModel]
    for model in found:
        found += model.__subclasses__()
    assert {PipelineSpec, SuiteSpec} <= set(found)
    return found[1:]


def _written_keys(model: type[SpecModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def test_files_with_several_mistakes_have_all_of_them_reported() -> None:
    """In one run."""
    counts = {case.stem: len(lines(case)) for case in update.cases("several")}
    assert [name for name, count in counts.items() if count not in SEVERAL] == []
