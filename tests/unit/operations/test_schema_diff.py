"""Which changes of a payload break those who publish it, those who read it, or nobody."""

from __future__ import annotations

from typing import Any

import pytest

from runner.operations.schema_diff import compare, fields

TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def changes(old: Any, new: Any, **documents: Any) -> list[tuple[str, str]]:
    return list(compare(fields(old, documents), fields(new, documents)))


def thing(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (thing(a=TEXT), thing(a=TEXT), []),
        (thing(a={**TEXT, "title": "A"}), thing(a={**TEXT, "description": "other words"}), []),
        (thing(a=TEXT), thing(a=TEXT, b=TEXT), [("", "b is new")]),
        (thing(a=TEXT), thing("b", a=TEXT, b=TEXT), [("publishers", "b is new and required")]),
        (thing(a=TEXT), thing("a", a=TEXT), [("publishers", "a is required now")]),
        (thing("a", a=TEXT), thing(a=TEXT), [("consumers", "a may be missing now")]),
        (thing(a=TEXT, b=TEXT), thing(a=TEXT), [("consumers", "b is removed")]),
        (
            {**thing(a=TEXT, b=TEXT), "additionalProperties": False},
            {**thing(a=TEXT), "additionalProperties": False},
            [("publishers", "b is removed")],
        ),
        (thing(a=TEXT), {**thing(a=TEXT), "additionalProperties": False}, [("publishers", "the payload has another additionalProperties: false, not none")]),
        (thing(a=WHOLE), thing(a=NUMBER), [("consumers", "a may be number now")]),
        (thing(a=NUMBER), thing(a=WHOLE), [("publishers", "a must no longer be number")]),
        (thing(a=TEXT), thing(a={"type": ["string", "null"]}), [("consumers", "a may be null now")]),
        (thing(a={"anyOf": [TEXT, {"type": "null"}]}), thing(a=TEXT), [("publishers", "a must no longer be null")]),
        (thing(a=TEXT), thing(a={"enum": ["x", "y"]}), [("publishers", "a must no longer be string")]),
        (thing(a={"enum": ["x", "y"]}), thing(a={"enum": ["y", "z"]}), [("publishers", 'a must no longer be "x"'), ("consumers", 'a may be "z" now')]),
        (thing(a={"const": 1}), thing(a=WHOLE), [("consumers", "a may be integer now")]),
        (thing(a={**WHOLE, "minimum": 1}), thing(a={**WHOLE, "minimum": 2}), [("publishers", "a has another minimum: 2, not 1")]),
        (thing(a={**WHOLE, "minimum": 1}), thing(a=WHOLE), [("consumers", "a has another minimum: none, not 1")]),
        (thing(a={**TEXT, "maxLength": 5}), thing(a={**TEXT, "maxLength": 9}), [("consumers", "a has another maxLength: 9, not 5")]),
        (thing(a=TEXT), thing(a={**TEXT, "pattern": "^a"}), [("publishers", 'a has another pattern: "^a", not none')]),
        ({"type": "array", "items": thing(q=TEXT)}, {"type": "array", "items": thing("q", q=TEXT)}, [("publishers", "[].q is required now")]),
        (thing(a=thing(b=thing(c=TEXT))), thing(), [("consumers", "a is removed")]),
        ({}, thing("a", a=TEXT), [("publishers", "the payload must no longer be array or boolean or integer or null or number or string"), ("publishers", "a is new and required")]),
        (True, True, []),
    ],
)  # fmt: skip
def test_each_difference_names_whom_it_breaks(old: Any, new: Any, found: list[tuple[str, str]]) -> None:
    assert changes(old, new) == found


def test_references_are_followed_and_recursion_ends() -> None:
    documents = {
        "Old": thing(name=TEXT, next={"$ref": "#/Old"}, items={"type": "array", "items": {"$ref": "#/Old"}}),
        "New": thing("name", name=TEXT, next={"$ref": "#/New"}, items={"type": "array", "items": {"$ref": "#/New"}}),
        "a/b": {"$defs": {"x~y": TEXT}},
    }
    assert ("publishers", "name is required now") in changes({"$ref": "#/Old"}, {"$ref": "#/New"}, **documents)
    assert changes({"$ref": "#/a~1b/$defs/x~0y"}, TEXT, **documents) == []
    assert changes({"$ref": "#/nowhere"}, {}, **documents) == []


def test_what_is_put_together_is_compared_as_a_whole() -> None:
    base, more = thing("a", a=TEXT), thing("b", b=TEXT)
    assert changes({"allOf": [base, more]}, {"allOf": [base]}) == [("consumers", "b is removed")]
