"""Bodies become what handlers ask for, and payloads become bodies."""

import inspect
import pickle
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from runner.errors import PublishFailed, Reject
from runner.message import MAX_BODY_BYTES, Envelope, Publish
from runner.outcome import InvalidMessage
from runner.pipeline.body_encoding import BYTES, JSON, TEXT
from runner.pipeline.codec import JsonText, checker, decoder, encode, encoder, guess_payload


class Order(BaseModel):
    """A payload as a model."""

    id: int


@dataclass
class Box:
    """A payload as a dataclass."""

    id: int


class Anything(BaseModel):
    """A model with room for anything."""

    value: Any


@dataclass
class Container:
    """A dataclass with room for anything."""

    value: Any


class Row(TypedDict):
    """A payload as a typed dictionary."""

    id: int


def envelope(body: bytes, content_type: str | None = None, **rest: Any) -> Envelope:
    return Envelope(body, content_type=content_type, **rest)


@pytest.mark.parametrize(
    ("annotation", "body", "content_type", "payload"),
    [
        (Order, b'{"id": 1}', None, Order(id=1)),
        (Order, b'{"id": 1}', "text/plain", Order(id=1)),
        (Box, b'{"id": 1}', "application/json", Box(1)),
        (Row, b'{"id": 1}', "application/json", {"id": 1}),
        (dict, b'{"id": 1}', None, {"id": 1}),
        (list[int], b"[1, 2]", None, [1, 2]),
        (int, b"7", None, 7),
        (str, "订单编号: 1".encode(), None, "订单编号: 1"),
        (str, b"12345", None, "12345"),
        (str, b'"a"', "application/json", "a"),
        (str, b'{"a": 1}', "application/json", '{"a": 1}'),
        (bytes, b"\xff\x00", "text/plain", b"\xff\x00"),
    ],
)
def test_a_body_becomes_what_the_annotation_says(
    annotation: Any, body: bytes, content_type: str | None, payload: Any
) -> None:
    """Models, dataclasses, dictionaries, text and bytes, with a content type and without."""
    assert decoder(annotation)(envelope(body, content_type)) == payload


@pytest.mark.parametrize(
    ("body", "content_type", "payload"),
    [
        (b'{"a": 1}', None, {"a": 1}),
        (b'{"a": 1}', "application/json; charset=utf-8", {"a": 1}),
        (b'{"a": 1}', "application/vnd.shop+json", {"a": 1}),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        (b"plain", None, "plain"),
        (b"", None, ""),
        (b"\xff", None, b"\xff"),
        (b"abc", "application/octet-stream", b"abc"),
        (b"NaN", None, "NaN"),
    ],
)
def test_without_an_annotation_the_body_says_what_it_is(body: bytes, content_type: str | None, payload: Any) -> None:
    """JSON if the type says so or it parses, else text, else bytes."""
    assert decoder(inspect.Parameter.empty)(envelope(body, content_type)) == payload
    assert decoder(Any)(envelope(body, content_type)) == payload


@pytest.mark.parametrize(
    ("annotation", "bad"),
    [
        (Order, envelope(b"{")),
        (Order, envelope(b"")),
        (Order, envelope(b'{"id": "x"}')),
        (Order, envelope(b"[" * 100_000)),
        (dict, envelope(b"[1]")),
        (str, envelope(b"\xff")),
        (Any, envelope(b"{", "application/json")),
        (Any, envelope(b'{"a": NaN}', "application/json")),
        (Any, envelope(b"[" * 100_000, "application/json")),
        (Any, envelope(b"\xff", "text/plain")),
        (str, envelope(b"x", content_encoding="gzip")),
    ],
)
def test_a_body_that_cannot_be_decoded_is_invalid(annotation: Any, bad: Envelope) -> None:
    """Whatever is wrong with it, it is one kind of error, so that it is dead-lettered and never retried."""
    with pytest.raises(InvalidMessage) as caught:
        decoder(annotation)(bad)
    assert caught.value.reason == "invalid"


def test_a_body_over_the_limit_is_too_large() -> None:
    """It is not even looked at."""
    with pytest.raises(InvalidMessage) as caught:
        decoder(bytes)(envelope(b"x" * (MAX_BODY_BYTES + 1)))
    assert caught.value.reason == "too-large"


def test_what_is_wrong_is_said_without_the_values() -> None:
    """A dead letter's header names the field; the value may be a secret."""
    with pytest.raises(InvalidMessage, match="id must be a whole number") as caught:
        decoder(Order)(envelope(b'{"id": "s3cret"}'))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "body", "content_type"),
    [
        ("订单编号: 1", "订单编号: 1".encode(), "text/plain"),
        (b"\xff", b"\xff", "application/octet-stream"),
        (bytearray(b"a"), b"a", "application/octet-stream"),
        ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        (Order(id=1), b'{"id":1}', "application/json"),
        (Box(1), b'{"id":1}', "application/json"),
        (1.5, b"1.5", "application/json"),
        (JsonText(b'{ "a": 1 }'), b'{ "a": 1 }', "application/json"),
    ],
)
def test_a_payload_becomes_a_plain_body(payload: Any, body: bytes, content_type: str) -> None:
    """Text and bytes as they are, everything else as JSON."""
    assert encode(payload) == (body, content_type)


def test_what_json_cannot_hold_is_refused() -> None:
    """By name, before anything is published."""
    with pytest.raises(PublishFailed, match="JSON"):
        encode({"x": object()})


def test_a_payload_is_checked_against_the_schema_before_it_is_published() -> None:
    """Models, dictionaries and JSON text that fit pass; what does not fit is named."""
    publish = encoder(TypeAdapter(Order), "orders")
    assert publish(Order(id=1))[0] == b'{"id":1}'
    assert publish({"id": 1, "more": 2})[0] == b'{"id":1,"more":2}'
    assert publish('{"id": 1}') == (b'{"id": 1}', "application/json")
    for wrong in ({"id": "x"}, "text", b"\xff", None, 5):
        with pytest.raises(PublishFailed, match='schema of "orders"'):
            publish(wrong)


@pytest.mark.parametrize(
    "inside",
    [
        lambda publish: [publish, 1],
        lambda publish: (publish, None),
        lambda publish: {"a": publish},
        lambda publish: {"a": [{"b": publish}]},
        lambda publish: Anything(value=publish),
        lambda publish: Container(publish),
        lambda publish: (item for item in [publish]),
        lambda publish: publish,
    ],
)
def test_a_publish_never_becomes_json(inside: Any) -> None:
    """Wherever it stands in a payload; the error says what to write."""
    with pytest.raises(PublishFailed) as caught:
        encode(inside(Publish({"n": 1}, to="urgent")))
    text = "a Publish is inside another value, where it cannot be published: yield each one"
    assert (str(caught.value), caught.value.reason) == (text, "invalid")


def test_a_publish_is_a_value() -> None:
    """It is compared, shown, copied to another process, and keeps its headers to itself."""
    made = Publish({"n": 1}, to="urgent", headers={"tenant": "north"})
    assert pickle.loads(pickle.dumps(made)) == made
    assert made != Publish({"n": 1})
    assert "urgent" in repr(made)
    assert Publish(1).headers is not Publish(1).headers
    with pytest.raises(ValueError, match="belong to the runner"):
        Publish(1, headers={"x-runner-attempt": 5})


def test_text_that_is_no_unicode_is_refused_before_it_is_published() -> None:
    """No handler could read it."""
    with pytest.raises(PublishFailed, match="not valid Unicode"):
        encode("\ud800")
    with pytest.raises(PublishFailed):
        encode({"a": "\ud800"})


@pytest.mark.parametrize(
    ("schema", "payload", "body", "kind"),
    [
        (str, "订单", "订单".encode(), TEXT),
        (str, '"quoted"', b'"quoted"', TEXT),
        (str | dict, '{"a": 1}', b'{"a": 1}', TEXT),
        (bytes, b"\xff", b"\xff", BYTES),
        (bytes, b'"abc"', b'"abc"', BYTES),
        (int | str, "5", b"5", TEXT),
        (int, "5", b"5", JSON),
        (list[int], b"[1]", b"[1]", JSON),
        (date, "2026-03-01", b"2026-03-01", TEXT),
        (date, date(2026, 3, 1), b'"2026-03-01"', JSON),
    ],
)
def test_text_and_bytes_are_what_they_are_where_the_schema_takes_them_so(
    schema: Any, payload: Any, body: bytes, kind: str
) -> None:
    """Else they are JSON. What arrives is what was published, also where it could be taken for JSON."""
    assert encoder(TypeAdapter(schema), "q")(payload) == (body, kind)
    checker({}, TypeAdapter(schema))(envelope(body, kind), None)
    found = decoder(schema)(envelope(body, kind))
    assert found == (payload if kind != JSON and schema is not date else TypeAdapter(schema).validate_python(found))


def test_each_event_is_checked_against_its_own_schema() -> None:
    """A subscriber of several events is checked against the schema of the message's event."""
    check = checker({"a": TypeAdapter(Order), "b": TypeAdapter(list[int])}, None)
    check(envelope(b'{"id": 1}', type="com.example.A"), "a")
    check(envelope(b"[1]"), "b")
    check(envelope(b'"anything"'), "c")
    check(envelope(b'"anything"'), None)
    with pytest.raises(InvalidMessage):
        check(envelope(b"[1]"), "a")


@pytest.mark.parametrize(
    ("body", "payload"), [(b'{"a": 1}', JsonText(b'{"a": 1}')), (b"text", "text"), (b"\xff", b"\xff"), (b"", "")]
)
def test_foreign_bytes_are_taken_for_what_they_look_like(body: bytes, payload: Any) -> None:
    """The command line publishes JSON as JSON, byte for byte."""
    found = guess_payload(body)
    assert (found, type(found)) == (payload, type(payload))


def test_an_exception_that_is_returned_is_meant_to_be_raised() -> None:
    with pytest.raises(PublishFailed, match="the exception Reject, which is not raised") as caught:
        encode(Reject("no"))
    assert caught.value.hint == "write `raise Reject(…)` in place of `return Reject(…)`"
