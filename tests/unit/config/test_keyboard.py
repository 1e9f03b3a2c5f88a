"""One slip of the keyboard in an example pipeline: it is never mended to another meaning, and never says too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.config.spec import PipelineSpec
from runner.errors import Problem, has_errors
from runner.operations.fixes import fixed_text
from runner.pipeline.spec_checks import check_names

PIPELINES = Path(__file__).parents[3] / "pipelines"
EXAMPLES = ("fulfilment.yaml", "quotes.yaml", "back_office.yaml")
_MAX_ROUNDS = 5


def behind_key(text: str) -> Callable[[str], str]:
    return lambda line: line.replace(":", text, 1)


# What happens to a line, and how many errors it may make at most.
SLIPS: dict[str, tuple[Callable[[str], str], int]] = {
    "one blank too much": (lambda line: f" {line}", 2),
    "two blanks too much": (lambda line: f"  {line}", 2),
    "one blank too little": (lambda line: line.removeprefix(" "), 3),
    "two blanks too little": (lambda line: line.removeprefix("  "), 2),
    "a tab": (lambda line: f"\t{line.lstrip()}" if line[0] == " " else line, 2),
    "a dash": (lambda line: f"{line[: _indent(line)]}- {line.lstrip()}", 2),
    "a hyphen": (lambda line: f"{line[: _indent(line)]}-{line.lstrip()}", 2),
    "a comma at the end": (lambda line: f"{_bare(line)},", 1),
    "a semicolon at the end": (lambda line: f"{_bare(line)};", 1),
    "a bracket at the end": (lambda line: f"{_bare(line)}}}", 2),
    "a quote at the end": (lambda line: f'{_bare(line)}"', 3),
    "no blank behind the colon": (lambda line: line.replace(": ", ":", 1), 2),
    "a blank before the colon, none behind it": (lambda line: line.replace(": ", " :", 1), 2),
    "an equals sign": (behind_key("="), 2),
    "a semicolon in place of the colon": (behind_key(";"), 3),
    "no colon": (behind_key(""), 4),
    "a wide colon": (behind_key("："), 1),
    "the line twice": (lambda line: f"{line}\n{line}", 2),
}
CHANGES = ("no colon", "a quote at the end")
"""Slips that can be mended to another text of a description, or to another import path, which names nothing."""
MOST_LEFT = 3
"""How many lines of an example `--fix` may leave as they are, for each kind of slip."""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _bare(line: str) -> str:
    """Return a line without its comment."""
    return line.partition(" #")[0].rstrip()


def lines_with(slip: Callable[[str], str], text: str) -> Iterator[str]:
    """Yield a text once for each of its lines, with the slip in that line."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#") and (wrong := slip(line)) != line:
            yield "\n".join([*lines[:index], wrong, *lines[index + 1 :], ""])


def judged(text: str) -> tuple[PipelineSpec | None, Sequence[Problem]]:
    """Return what a text means, None if it is wrong, and its problems."""
    loaded, problems = check_names(load_text(text, PIPELINES / "slip.yaml", {}))
    return None if has_errors(problems) else loaded.spec, problems


def mended(text: str) -> PipelineSpec | None:
    """Return what a text means when all its fixes are applied, as `validate --fix` does; None if it is still wrong."""
    for _ in range(_MAX_ROUNDS):
        spec, problems = judged(text)
        fixes = [problem for problem in problems if problem.fix is not None]
        if spec is not None or not fixes:
            return spec
        text = fixed_text(text, fixes)[0]
    return None


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_slip_is_never_mended_to_another_meaning(example: str, slip: str) -> None:
    change, most = SLIPS[slip]
    text = (PIPELINES / example).read_text()
    meant, _ = judged(text)
    left = []
    for wrong in lines_with(change, text):
        spec, problems = judged(wrong)
        errors = [problem for problem in problems if problem.severity == "error"]
        assert len(errors) <= most, (wrong, errors)
        if spec is None and slip not in CHANGES:
            found = mended(wrong)
            assert found in (None, meant), wrong
            left += [] if found else [wrong]
    assert len(left) <= MOST_LEFT, left
