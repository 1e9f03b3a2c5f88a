"""Bodies become what handlers ask for, and payloads become bodies."""

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from runner.errors import PublishFailed
from runner.message import MAX_BODY_BYTES, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.payload import JsonText, as_payload, checked, decoder, encode, encoder


class Order(BaseModel):
    """A payload as a model."""

    id: int


@dataclass
class Box:
    """A payload as a dataclass."""

    id: int


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
        (bytes, envelope(b"x", content_encoding="gzip")),
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
    with pytest.raises(InvalidMessage, match="id: ") as caught:
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


def test_a_schema_of_plain_text_is_text() -> None:
    """A queue of strings stays readable for other programs."""
    assert encoder(TypeAdapter(str), "q")("订单") == ("订单".encode(), "text/plain")


def test_each_event_is_checked_against_its_own_schema() -> None:
    """A subscriber of several events knows them apart by their type."""
    decode = checked({"a": TypeAdapter(Order), "b": TypeAdapter(list[int])}, None, decoder(Any))
    assert decode(envelope(b'{"id": 1}', type="a")) == {"id": 1}
    assert decode(envelope(b"[1]", type="b")) == [1]
    assert decode(envelope(b'"anything"', type="c")) == "anything"
    with pytest.raises(InvalidMessage):
        decode(envelope(b"[1]", type="a"))


@pytest.mark.parametrize(
    ("body", "payload"), [(b'{"a": 1}', JsonText(b'{"a": 1}')), (b"text", "text"), (b"\xff", b"\xff"), (b"", "")]
)
def test_foreign_bytes_are_taken_for_what_they_look_like(body: bytes, payload: Any) -> None:
    """The command line publishes JSON as JSON, byte for byte."""
    found = as_payload(body)
    assert (found, type(found)) == (payload, type(payload))
