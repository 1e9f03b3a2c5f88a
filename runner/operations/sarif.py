"""Writes problems as SARIF 2.1.0, which code hosts and editors show beside the lines of a file.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from runner.config.diagnostics import display_path, in_order
from runner.errors import Problem
from runner.operations.explanations import explanations

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_sarif(problems: Sequence[Problem], version: str) -> str:
    """Return one run of the tool `runner` with a result for each problem. `version` is that of the runner."""
    found = in_order(problems)
    codes = sorted({problem.code for problem in found})
    known = explanations()
    rules = [_rule(code, known[code].text if code in known else code) for code in codes]
    driver = {"name": "runner", "version": version, "rules": rules}
    results = [_result(problem, codes.index(problem.code)) for problem in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(code: str, text: str) -> dict[str, Any]:
    first = text.splitlines()[0]
    return {"id": code, "shortDescription": {"text": first}, "help": {"text": text, "markdown": text}}


def _result(problem: Problem, rule: int) -> dict[str, Any]:
    subject = f"{problem.path}: {problem.message}" if problem.path else problem.message
    result: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": f"{subject}; {problem.help}" if problem.help else subject},
    }
    if problem.file:
        place: dict[str, Any] = {"artifactLocation": _artifact(problem)}
        if problem.line:
            end = (problem.line, problem.column + problem.length)
            place["region"] = _region((problem.line, problem.column), end)
        result["locations"] = [{"physicalLocation": place}]
    if problem.fix is not None:
        replacement = {
            "deletedRegion": _region(problem.fix.start, problem.fix.end),
            "insertedContent": {"text": problem.fix.text},
        }
        change = {"artifactLocation": _artifact(problem), "replacements": [replacement]}
        result["fixes"] = [{"description": {"text": problem.help}, "artifactChanges": [change]}]
    return result


def _artifact(problem: Problem) -> dict[str, str]:
    return {"uri": quote(display_path(problem.file))}


def _region(start: tuple[int, int], end: tuple[int, int]) -> dict[str, int]:
    return {"startLine": start[0], "startColumn": start[1], "endLine": end[0], "endColumn": end[1]}
