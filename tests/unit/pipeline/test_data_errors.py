"""Words for JSON that cannot be parsed, and for values that do not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from runner.errors import PublishFailed
from runner.message import Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.codec import decoder, encode, encoder
from runner.pipeline.data_errors import json_error, validation_errors
from tests.wrong.foreign import foreign_words

BROKEN = {
    b'{"id": 1,}': 'a "," before "}" (column 9)',
    b'[1, 2 , ]': 'a "," before "]" (column 7)',
    b'{\n "a": 1,\n}': 'a "," before "}" (line 2, column 8)',
    b"{'id': 1}": "other quotes than double quotes (column 2)",
    b"{id: 1}": "a name without double quotes (column 2)",
    b'{"a": True}': "True instead of true (column 7)",
    b'{"a" 1}': 'no ":" after a name (column 6)',
    b'{"a": 1 "b": 2}': 'no "," between two values, or no end (column 9)',
    b'{"a": 1': "it ends too early (column 8)",
    b'{"a": "x': "a text without its closing quote (column 7)",
    b'{"a": "x\ny"}': "a line break or control character in a text (column 9)",
    b'{"a": NaN}': "it has NaN, which JSON does not know",
    b'{"a": 1} x': "something after the end (column 10)",
    b"not json": "a text without double quotes, or no value (column 1)",
    b"\xff": "it is not UTF-8 (byte 0)",
    b" ": "it is empty",
}  # fmt: skip


@pytest.mark.parametrize(("body", "words"), BROKEN.items())
def test_json_that_cannot_be_parsed(body: bytes, words: str) -> None:
    """The same in each version of Python, at the character to be corrected."""
    assert json_error(body) == words


@pytest.mark.parametrize("body", [b"{}", b'\xef\xbb\xbf{"a": [1, null]}', b"0", b'"x"'])
def test_json(body: bytes) -> None:
    assert json_error(body) == ""


class Order(BaseModel):
    """A payload with fields of many kinds."""

    i: int = 0
    f: float = 0.0
    s: str = ""
    items: list[int] = []
    d: dict[str, int] = {}
    kind: Literal["a", "b"] = "a"
    at: datetime | None = None
    count: int = Field(1, gt=0)
    name: str = Field("xx", min_length=2)
    inner: Order | None = None


class Thing:
    """A value that JSON does not know."""


def print_order(order: object) -> None:
    print(order)


ROUND: dict[str, Any] = {}
ROUND["round"] = ROUND


class Habit(BaseModel):
    """A model as in pydantic 1, where this field has the default None."""

    id: str
    note: str | None


@dataclass
class Plain:
    """The same as a dataclass."""

    id: str
    note: str | None


class Delivery(BaseModel):
    """A model for messages of a program that writes other names."""

    order_id: str
    count: int


@pytest.mark.parametrize("kind", [Habit, Plain])
def test_a_missing_field_that_may_be_null_is_told_that_it_needs_a_default(kind: type) -> None:
    """In the words of a dead letter and of a publisher."""
    words = "note is missing (it may be null, but has no default: add `= None` to it in the model)"
    with pytest.raises(InvalidMessage) as caught:
        decoder(kind)(Envelope(b'{"id": "1"}', content_type="application/json"))
    assert str(caught.value) == words
    with pytest.raises(PublishFailed, match=re.escape(f'the payload does not fit the schema of "orders": {words}')):
        encoder(TypeAdapter(kind), "orders")({"id": "1"})
    with pytest.raises(InvalidMessage) as caught:
        decoder(kind)(Envelope(b'{"note": null}', content_type="application/json"))
    assert str(caught.value) == "id is missing"
    assert decoder(kind)(Envelope(b'{"id": "1", "note": null}', content_type="application/json")).note is None
    with pytest.raises(InvalidMessage) as caught:
        decoder(kind)(Envelope(b'{"id": null, "note": null}', content_type="application/json"))
    assert str(caught.value) == (
        "id must be text, not null (if it may be null, write `| None` behind its type in the model)"
    )


def test_a_missing_field_that_has_other_letters_in_the_payload_is_told_its_alias() -> None:
    """Programs of other languages write `orderId`. The value stays out of the message."""
    with pytest.raises(InvalidMessage) as caught:
        decoder(Delivery)(Envelope(b'{"orderId": "S3CR3T", "Count": 2}', content_type="application/json"))
    assert str(caught.value) == (
        'order_id is missing (there is "orderId": write "order_id" there, or `order_id: … = Field(alias="orderId")` in '
        'the model); count is missing (there is "Count": write "count" there, or `count: … = Field(alias="Count")` in '
        "the model)"
    )


WRONG: list[tuple[Any, str, str]] = [
    ({"i": "S3CR3T"}, "i must be a whole number", ', not the text "S3CR3T"'),
    ({"f": "S3CR3T"}, "f must be a number", ', not the text "S3CR3T"'),
    ({"s": 5}, "s must be text", ", not the number 5"),
    ({"items": ["S3CR3T"]}, "items.0 must be a whole number", ', not the text "S3CR3T"'),
    ({"d": 5}, "d must be an object", ", not the number 5"),
    ({"kind": "S3CR3T"}, "kind must be 'a' or 'b'", ', not the text "S3CR3T"'),
    ({"at": "S3CR3T"}, "at must be a date and time, such as 2026-01-31T12:00:00Z", ', not the text "S3CR3T"'),
    ({"count": 0}, "count must be more than 0", ", not the number 0"),
    ({"name": "x"}, "name must have at least 2 characters", ""),
    ({"inner": 5}, "inner must be an object", ", not the number 5"),
    (5, "the payload must be an object", ", not the number 5"),
]


@pytest.mark.parametrize(("value", "words", "instead"), WRONG, ids=[str(item[0]) for item in WRONG])
def test_a_value_that_does_not_fit(value: Any, words: str, instead: str) -> None:
    """With its value only where the caller may see it."""
    with pytest.raises(ValidationError) as caught:
        Order.model_validate(value)
    assert validation_errors(caught.value) == words
    assert validation_errors(caught.value, shows_values=True) == words + instead
    assert "S3CR3T" not in words
    assert not foreign_words(words)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, 'the payload has nan at "a.b.1", which JSON does not know'),
        ([float("inf")], 'the payload has inf at "0", which JSON does not know'),
        (float("-inf"), "the payload has -inf, which JSON does not know"),
    ],
)
def test_a_number_that_json_does_not_know(payload: Any, words: str) -> None:
    """It would arrive as a text. A text that only looks like one is published."""
    with pytest.raises(PublishFailed) as caught:
        encode(payload)
    assert (str(caught.value), caught.value.reason) == (words, "invalid")
    assert encode({"a": "NaN", "b": "-Infinity"})[0] == b'{"a":"NaN","b":"-Infinity"}'


@pytest.mark.parametrize(
    ("payload", "words", "help_"),
    [
        (
            {"a": [Thing()]},
            f'it has an object of {__name__}.Thing at "a.0"',
            "return a dict, a dataclass or a pydantic",
        ),
        (Thing(), f"it has an object of {__name__}.Thing", "return a dict, a dataclass or a pydantic model instead"),
        ({"raw": b"\xff"}, 'it has bytes that are not UTF-8 at "raw"', "write base64.b64encode(…).decode()"),
        (print_order, "it is a function", "the handler makes a function: call it in the module"),
        (ROUND, "Error serializing to JSON: ValueError: Circular reference detected (id repeated)", ""),
    ],
)
def test_a_value_that_json_cannot_represent(payload: Any, words: str, help_: str) -> None:
    with pytest.raises(PublishFailed) as caught:
        encode(payload)
    assert (str(caught.value), caught.value.reason) == (f"the payload cannot be written as JSON: {words}", "invalid")
    assert caught.value.hint.startswith(help_)


def test_a_text_for_a_schema_says_why_it_is_not_json() -> None:
    from pydantic import TypeAdapter

    with pytest.raises(PublishFailed, match='the body is not JSON: a "," before "}"'):
        encoder(TypeAdapter(Order), "orders")('{"i": 1,}')
