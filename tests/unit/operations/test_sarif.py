"""SARIF of problems."""

from __future__ import annotations

import json

from runner.errors import Fix, Problem
from runner.operations.sarif import as_sarif


def test_a_problem_is_a_result_of_its_rule_with_its_region_and_fix() -> None:
    """`endColumn` is after the last character, and the rule has the explanation of the code."""
    problem = Problem(
        code="unknown-key",
        message='unknown key "handlr"',
        path="subscribers.ship",
        help='did you mean "handler"?',
        file="a b.yaml",
        line=4,
        column=5,
        length=6,
        fix=Fix((4, 5), (4, 11), "handler"),
    )
    (run,) = json.loads(as_sarif([problem], "1.0"))["runs"]
    (rule,) = run["tool"]["driver"]["rules"]
    assert (rule["id"], rule["shortDescription"]["text"]) == ("unknown-key", "A key is not allowed in this map.")
    (result,) = run["results"]
    region = {"startLine": 4, "startColumn": 5, "endLine": 4, "endColumn": 11}
    assert (result["ruleId"], result["ruleIndex"], result["level"]) == ("unknown-key", 0, "error")
    assert result["message"]["text"] == 'subscribers.ship: unknown key "handlr"; did you mean "handler"?'
    place = {"artifactLocation": {"uri": "a%20b.yaml"}, "region": region}
    assert result["locations"] == [{"physicalLocation": place}]
    (change,) = result["fixes"][0]["artifactChanges"]
    assert change["replacements"] == [{"deletedRegion": region, "insertedContent": {"text": "handler"}}]


def test_a_problem_without_a_place_has_no_location() -> None:
    """A folder without pipelines has no line."""
    found = [Problem(code="no-pipelines", message="no pipeline below this folder", severity="warning")]
    (run,) = json.loads(as_sarif(found, "1.0"))["runs"]
    assert run["results"][0]["level"] == "warning"
    assert "locations" not in run["results"][0]
    assert json.loads(as_sarif([], "1.0"))["runs"][0]["results"] == []
