"""Secrets of pydantic are published with their value, or not at all; never as stars."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, Secret, SecretBytes, SecretStr, TypeAdapter, field_serializer
from pydantic.dataclasses import dataclass
from pydantic_core import from_json
from typing_extensions import TypedDict

from runner.errors import PublishFailed
from runner.message import Envelope
from runner.pipeline.codec import decoder, encode, encoder


class SecretDate(Secret[date]):
    """A secret with a mask of its own."""

    def _display(self) -> str:
        return "[a day]"


class Login(BaseModel):
    """A model with secrets of each kind."""

    model_config = ConfigDict(ser_json_timedelta="float")
    user: str = "ann"
    token: SecretStr = SecretStr("t0ken")
    key: SecretBytes = SecretBytes(b"k3y")
    number: Secret[int] = Secret[int](7)
    born: SecretDate = SecretDate(date(2000, 2, 3))
    takes: timedelta = timedelta(seconds=1.5)
    stars: str = "**********"


PLAIN = {
    "user": "ann",
    "token": "t0ken",
    "key": "k3y",
    "number": 7,
    "born": "2000-02-03",
    "takes": 1.5,
    "stars": "**********",
}


class Box(BaseModel):
    """Anything in a model."""

    inside: Any
    token: SecretStr = Field(default=SecretStr("x"), alias="theToken")


@dataclass
class Pydantic:
    """A dataclass of pydantic."""

    token: SecretStr


@dataclasses.dataclass
class Plain:
    """A dataclass of Python's."""

    token: SecretStr


class Row(TypedDict):
    """A typed dictionary."""

    token: SecretStr


class Pair(NamedTuple):
    """A named tuple."""

    token: SecretStr
    count: int  # type: ignore[assignment]  # a field that hides the method of tuples


class Other(BaseModel):
    """The author has said how the secret is written."""

    token: SecretStr

    @field_serializer("token", when_used="json")
    def hide(self, token: SecretStr) -> str:
        return f"hash of {len(token)}"


TOKEN = SecretStr("t0ken")


@pytest.mark.parametrize(
    ("payload", "published"),
    [
        (TOKEN, "t0ken"),
        (SecretBytes(b"k3y"), "k3y"),
        (SecretDate(date(2000, 2, 3)), "2000-02-03"),
        (Login(), PLAIN),
        ([Login(), 1], [PLAIN, 1]),
        ({"a": {"b": (Login(),)}}, {"a": {"b": [PLAIN]}}),
        (Box(inside=[Login(), TOKEN]), {"inside": [PLAIN, "t0ken"], "theToken": "x"}),
        (
            Box(inside={"deep": Box(inside=None)}),
            {"inside": {"deep": {"inside": None, "theToken": "x"}}, "theToken": "x"},
        ),
        (Pydantic(TOKEN), {"token": "t0ken"}),
        (Plain(TOKEN), {"token": "t0ken"}),
        ({"plain": Plain(TOKEN)}, {"plain": {"token": "t0ken"}}),
        (Row(token=TOKEN), {"token": "t0ken"}),
        ([Pair(TOKEN, 2)], [["t0ken", 2]]),
        ({TOKEN}, ["t0ken"]),
        (Other(token=TOKEN), {"token": "hash of 5"}),
        (SecretStr(""), ""),
        (SecretStr("**********"), "**********"),
        ({"b": b"****", "s": {"****"}}, {"b": "****", "s": ["****"]}),
    ],
)
def test_a_secret_is_published_with_its_value(payload: Any, published: Any) -> None:
    """In models, dataclasses, dictionaries, lists and sets, however deep; everything else stays as it would be."""
    assert from_json(encode(payload)[0]) == published


@pytest.mark.parametrize(
    "payload",
    [
        {TOKEN: 1},
        {TOKEN, "plain"},
        {"items": (Login() for _ in range(1))},
        SecretBytes(b"\xff"),
    ],
)
def test_a_secret_that_cannot_be_found_is_refused(payload: Any) -> None:
    """Before it is published."""
    with pytest.raises(PublishFailed) as caught:
        encode(payload)
    assert caught.value.reason == "invalid"


def test_an_iterator_inside_a_payload_is_written_once() -> None:
    """It is not gone through again, to look for secrets."""

    def items() -> Iterator[Any]:
        yield "a****"

    with pytest.raises(PublishFailed, match="secret"):
        encode({"items": items()})
    assert encode({"items": (each for each in "ab")})[0] == b'{"items":["a","b"]}'


@pytest.mark.parametrize("schema", [Login, list[Login], Pydantic, Plain, Row])
def test_what_arrives_is_what_was_published(schema: Any) -> None:
    """By the schema's own check."""
    payload = {
        Login: Login(),
        Pydantic: Pydantic(TOKEN),
        Plain: Plain(TOKEN),
        Row: Row(token=TOKEN),
    }.get(schema, [Login()])
    body, kind = encoder(TypeAdapter(schema), "q")(payload)
    assert decoder(schema)(Envelope(body, content_type=kind)) == payload
