"""Writes the results of tests as text, as annotations for GitHub, as JSON, and as JUnit XML for CI servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from runner.config import diagnostics
from runner.config.code_frame import escape
from runner.config.diagnostics import display_path
from runner.testing.coverage import Coverage
from runner.testing.expectations import Failure, story_lines
from runner.testing.runs import CaseResult
from runner.units import format_duration, pluralize

MAX_LINES = 40
"""How many lines of a story are shown: of a longer one, the first and the last ones."""


def failure_text(result: CaseResult, *, colour: bool = False) -> str:
    """Return what is wrong in a failed test: each failure with its line and the differences, and the stories.

    A story that several failures have is told once, after the last of them.
    """
    blocks = []
    for failure, following in zip(result.failures, [*result.failures[1:], None], strict=True):
        text = diagnostics.full([failure.problem], colour=colour)
        text += "".join(f"  {escape(line)}\n" for line in failure.differences)
        if following is None or following.story != failure.story:
            text += _story(failure, result)
        blocks.append(text)
    printed = _section("what was printed:", result.printed.splitlines()) if result.printed else ""
    return "\n".join(blocks) + printed


def _story(failure: Failure, result: CaseResult) -> str:
    lines = story_lines(failure.story, result.start) if result.start is not None else []
    return _section("what happened:" if lines else "nothing happened", lines)


def _section(heading: str, lines: list[str]) -> str:
    if len(lines) > MAX_LINES:
        half = MAX_LINES // 2
        lines[half:-half] = [f"… {pluralize(len(lines) - 2 * half, 'more line')}"]
    return f"  {heading}\n" + "".join(f"    {escape(line)}\n" for line in lines)


def result_line(result: CaseResult) -> str:
    """Return the line of a test: its outcome, its name, and the real and virtual time that it took."""
    if result.outcome == "skipped":
        return f"  skipped  {escape(result.name)} ({escape(result.reason)})"
    virtual = f" · {format_duration(result.virtual_s)} of virtual time" if result.virtual_s else ""
    return f"  {result.outcome:<7}  {escape(result.name)} ({result.seconds * 1000:.0f} ms{virtual})"


def summary(results: Sequence[CaseResult]) -> str:
    """Return how many tests have passed, failed and been left out."""
    counts = {outcome: sum(each.outcome == outcome for each in results) for outcome in ("failed", "passed", "skipped")}
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "passed"]
    return f"{pluralize(len(results), 'test')}: {', '.join(parts)}"


def as_github(results: Iterable[CaseResult]) -> str:
    """Return workflow commands. GitHub shows them beside the lines of a pull request."""
    return diagnostics.github(failure.problem for result in results for failure in result.failures)


def as_json(results: Iterable[CaseResult], **more: Any) -> str:
    """Return a JSON object with the tests, their failures and the stories of the messages concerned."""
    return json.dumps({"tests": [_as_data(each) for each in results], **more}, indent=2, ensure_ascii=False) + "\n"


def _as_data(result: CaseResult) -> dict[str, Any]:
    return {
        "file": display_path(result.suite.path),
        "line": result.suite.line(result.name),
        "name": result.name,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 4),
        "virtual_seconds": result.virtual_s,
        **({"reason": result.reason} if result.outcome == "skipped" else {}),
        "failures": [
            {
                "line": each.problem.line,
                "column": each.problem.column,
                "path": each.problem.path,
                "message": each.problem.message,
                "differences": list(each.differences),
                "story": story_lines(each.story, result.start) if result.start is not None else [],
            }
            for each in result.failures
        ],
    }


def unreached(coverage: Coverage) -> dict[str, list[str]]:
    """Return what no test has reached, by the file of the pipeline, in words."""
    found = coverage.unreached().items()
    return {display_path(path): [f"{kind} {name}" for kind, name in parts] for path, parts in found if parts}


def as_junit(results: Sequence[CaseResult]) -> str:
    """Return JUnit XML, as Jenkins and GitLab read it: a `testsuite` for each file."""
    root = ET.Element("testsuites", _totals(results, "failed"))
    for path in dict.fromkeys(each.suite.path for each in results):
        own = [each for each in results if each.suite.path == path]
        suite = ET.SubElement(root, "testsuite", {"name": display_path(path), **_totals(own, "failed", "skipped")})
        for each in own:
            case = ET.SubElement(suite, "testcase", _attributes(each))
            if each.outcome == "skipped":
                ET.SubElement(case, "skipped", {"message": escape(each.reason)})
            elif each.outcome == "failed":
                first = each.failures[0].problem
                message = escape(": ".join(part for part in (first.path, first.message) if part))
                ET.SubElement(case, "failure", {"type": first.code, "message": message}).text = failure_text(each)
    ET.indent(root)
    text: str = ET.tostring(root, encoding="utf-8", xml_declaration=True).decode()
    return re.sub("[\ufffe\uffff]", "", text) + "\n"  # `escape` leaves these, and XML has no way to write them


def _attributes(result: CaseResult) -> dict[str, str]:
    file = display_path(result.suite.path)
    place = {"classname": file.removesuffix(result.suite.path.suffix).replace("/", "."), "file": file}
    return place | {"name": escape(result.name), "time": f"{result.seconds:.4f}"}


def _totals(results: Sequence[CaseResult], *outcomes: str) -> dict[str, str]:
    words = {"failed": "failures", "skipped": "skipped"}
    count = {words[outcome]: str(sum(each.outcome == outcome for each in results)) for outcome in outcomes}
    seconds = sum(each.seconds for each in results)
    return {"tests": str(len(results)), "errors": "0", **count, "time": f"{seconds:.4f}"}
