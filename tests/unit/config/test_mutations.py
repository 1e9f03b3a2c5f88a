"""Any change of a right pipeline gives a spec or problems, never an exception."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner.config import diagnostics
from runner.config.loader import load_text
from runner.errors import Problem
from runner.operations.explanations import explanations
from runner.system import check
from tests.process import ROOT
from tests.wrong.foreign import foreign_words

EXAMPLES = sorted((ROOT / "pipelines").glob("*.yaml"))
TEXTS = [path.read_text("utf-8") for path in EXAMPLES]
CODES = explanations()
SCALAR = re.compile(r"(?<=[:,\[{-] )[^\s,\[\]{}#&*!|>'\"%@`][^\n,\[\]{}#]*")
"""A value as the examples write them."""

SCALARS = [
    *("", "~", "null", "true", "no", "0", "-1", "1.5", ".nan", ".inf", "1e999", "0x10", "010", "9" * 30, "12:30"),
    *("5s", "0s", "-5s", "9" * 400 + "d", "64kB", "5/s", "none", "quorum", "stream", "memory", "amqp://h", "order.*"),
    *("&a", "*a", "*", "!x", "|", ">", "%", "@", "`", "'", '"', "[", "]", "{", "}", "[]", "{}", "{a: b}", "- a", "? a"),
    *("<<", "${X}", "${X:-5}", "${file:x}", "${", "$", "$X", "a:b", "a.b:c", "amq.x", "\\0", '"\\x00"', "é", "🎉"),
    *(
        "\u2028",
        "\x85",
        "\ufeff",
        "\x00",
        "\t",
        "\r",
        "x" * 300,
        "---",
        "...",
        "#",
        "a: b: c",
        "'it's'",
        '"\\q"',
        "{{ a }}",
    ),
]

same_every_time = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = st.sampled_from(SCALARS) | st.text(max_size=12)
places = st.integers(0, 10_000)


# A change takes a text, two places in it, and a scalar. Places wrap around.


def delete_line(text: str, one: int, two: int, scalar: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for index, line in enumerate(lines) if index != one % max(1, len(lines)))


def duplicate_line(text: str, one: int, two: int, scalar: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    lines.insert(two % len(lines), lines[one % len(lines)])
    return "".join(lines)


def swap_lines(text: str, one: int, two: int, scalar: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    first, second = one % len(lines), two % len(lines)
    lines[first], lines[second] = lines[second], lines[first]
    return "".join(lines)


def indent_line(text: str, one: int, two: int, scalar: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    index = one % len(lines)
    lines[index] = ("", " ", "   ", "        ", "\t", " \t ")[two % 6] + lines[index].lstrip(" ")
    return "".join(lines)


def replace_scalar(text: str, one: int, two: int, scalar: str) -> str:
    found = list(SCALAR.finditer(text))
    if not found:
        return text + scalar
    match = found[one % len(found)]
    return text[: match.start()] + scalar + text[match.end() :]


def insert_text(text: str, one: int, two: int, scalar: str) -> str:
    index = one % (len(text) + 1)
    return text[:index] + scalar + text[index:]


def delete_text(text: str, one: int, two: int, scalar: str) -> str:
    index = one % (len(text) + 1)
    return text[:index] + text[index + 1 + two % 30 :]


def truncate(text: str, one: int, two: int, scalar: str) -> str:
    return text[: one % (len(text) + 1)]


Change = Callable[[str, int, int, str], str]
CHANGES: Sequence[Change] = (
    *(delete_line, duplicate_line, swap_lines, indent_line, replace_scalar, insert_text, delete_text, truncate),
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Return an example with one to three changes."""
    text = draw(st.sampled_from(TEXTS))
    for change, one, two, scalar in draw(
        st.lists(st.tuples(st.sampled_from(CHANGES), places, places, scalars), min_size=1, max_size=3)
    ):
        text = change(text, one, two, scalar)
    return text


@pytest.fixture
def same_import_path() -> Iterator[None]:
    """Checking puts the current folder on the import path; here it does not stay there."""
    path = list(sys.path)
    yield
    sys.path[:] = path


def check_problems(problems: Sequence[Problem], text: str) -> None:
    """Every problem has an explanation, no words of libraries and a place, and can be written in every style."""
    own_lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text.removeprefix("\ufeff"))
    for problem in problems:
        module = Path(problem.file)  # a handler's problem is in its module
        lines = module.read_text("utf-8").splitlines() if module.suffix == ".py" else own_lines
        assert problem.code in CODES
        assert problem.message
        assert problem.help, problem
        assert foreign_words(problem.message + problem.help) == set()
        assert 1 <= problem.line <= len(lines), problem
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
        assert problem.length >= 1
    assert diagnostics.concise(problems).count("\n") == len(problems)
    assert diagnostics.github(problems).count("\n") == len(problems)
    assert len(json.loads(diagnostics.as_json(problems))) == len(problems)
    diagnostics.full(problems, colour=True)


@settings(same_every_time, max_examples=300)
@given(mutations())
@example("")
@example("\ufeff")
@example("version: 1\n" * 3)
def test_a_changed_pipeline_gives_a_spec_or_problems(text: str) -> None:
    """One of the two, never both, never neither."""
    loaded = load_text(text, Path("a.yaml"), {})
    assert (loaded.spec is None) == bool(loaded.problems)
    check_problems(loaded.problems, text)


@settings(same_every_time, max_examples=50)
@given(text=mutations())
def test_checking_a_changed_pipeline_never_fails(text: str, tmp_path: Path, same_import_path: None) -> None:
    """From a file, as `runner validate --no-imports` does: names and import paths are judged, too."""
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems, files = check([path], {})
    assert len(files) == 1
    if [problem.code for problem in problems] != ["not-utf-8"]:
        check_problems(problems, text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_no_line_of_an_example_can_be_left_out_by_an_exception(path: Path) -> None:
    """Lines deleted, doubled, indented, and the file cut behind them: all lines, or about 50 of a long example."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for index in range(0, len(lines), 1 + len(lines) // 50):
        line = lines[index]
        before, after = "".join(lines[:index]), "".join(lines[index + 1 :])
        for changed in (before + after, before + line * 2 + after, before + " " + line + after, before + line):
            loaded = load_text(changed, path, {})
            assert (loaded.spec is None) == bool(loaded.problems)
            check_problems(loaded.problems, changed)
