"""What the check before publishing accepts, the check on arrival accepts, and it is the same value: drawn at random."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    computed_field,
    create_model,
)

from runner.errors import PublishFailed
from runner.message import Envelope
from runner.pipeline.codec import checker, decoder, encode, encoder


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = 2


class Inner(BaseModel):
    """A model in a model."""

    model_config = ConfigDict(extra="forbid")
    n: int = 0
    secret: SecretStr = SecretStr("s")

    @computed_field
    @property
    def double(self) -> int:
        """Written, and not read where the rest is forbidden."""
        return 2 * self.n


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
VALUES: Mapping[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(10**30), 10**30),
    float: st.floats(allow_nan=False),
    str: TEXTS,
    bool: st.booleans(),
    bytes: st.binary(max_size=5),
    date: st.dates(),
    datetime: MOMENTS | MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    time: st.times(),
    timedelta: st.timedeltas(timedelta(-9999), timedelta(9999)),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=3),
    UUID: st.uuids(),
    IPv4Address: st.ip_addresses(v=4),
    PurePosixPath: st.sampled_from(["a/b", "/", "."]).map(PurePosixPath),
    Colour: st.sampled_from(Colour),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    SecretStr: TEXTS.map(SecretStr) | st.just(SecretStr("**********")),
    SecretBytes: st.binary(max_size=5).map(SecretBytes),
    Json[list[int]]: st.lists(st.integers(), max_size=2).map(str),
    Inner: st.builds(Inner, n=st.integers(0, 9), secret=TEXTS.map(SecretStr)),
    list[int]: st.lists(st.integers(), max_size=3),
    dict[str, SecretStr]: st.dictionaries(TEXTS, TEXTS.map(SecretStr), max_size=2),
    dict[int, str]: st.dictionaries(st.integers(), TEXTS, max_size=2),
    set[str]: st.sets(TEXTS, max_size=3),
    tuple[int, str]: st.tuples(st.integers(), TEXTS),
    int | str: st.integers() | TEXTS,
    str | None: st.none() | TEXTS,
    Any: st.none() | st.integers() | TEXTS | st.lists(TEXTS, max_size=2),
}
FIELDS = [
    lambda: Field(),
    lambda: Field(alias="theAlias"),
    lambda: Field(validation_alias="theAlias"),
    lambda: Field(serialization_alias="theAlias"),
    lambda: Field(validation_alias=AliasChoices("a", "theAlias")),
    lambda: Field(exclude=True),
]
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "extra": st.sampled_from(["forbid", "allow"]),
        "strict": st.booleans(),
        "populate_by_name": st.just(True),
        "ser_json_timedelta": st.just("float"),
        "ser_json_bytes": st.just("base64"),
        "val_json_bytes": st.just("base64"),
    },
)
KINDS = st.sampled_from(list(VALUES))


@st.composite
def models(draw: st.DrawFn) -> tuple[type[BaseModel], dict[str, Any]]:
    """Draw a model and the values of its fields."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
    config: Any = draw(CONFIGS)
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    aliased = draw(st.sampled_from(names))
    for name in names:
        kind = draw(KINDS)
        field = draw(st.sampled_from(FIELDS))() if name == aliased else Field()
        fields[name] = (Annotated[kind, field], ...)
        values[name] = draw(VALUES[kind])
    return create_model("Drawn", __config__=config, **fields), values


def outcome(schema: Any, payload: Any) -> str:
    """Publish a payload and let it arrive; return which way it went, and fail where the two sides disagree."""
    try:
        body, kind = encoder(TypeAdapter(schema), "q")(payload)
    except PublishFailed:
        return "refused"
    envelope = Envelope(body, content_type=kind)
    checker({}, TypeAdapter(schema))(envelope, None)
    arrived = decoder(schema)(envelope)
    if arrived == payload:
        return "equal"
    assert encode(arrived)[0] == body
    return "the same JSON"


def made(model: type[BaseModel], values: dict[str, Any]) -> BaseModel | None:
    """Return an instance, by names or by aliases; None where its own rules do not allow that."""
    aliases = {name: field.validation_alias or field.alias or name for name, field in model.model_fields.items()}
    firsts = {
        name: str(alias.choices[0]) if isinstance(alias, AliasChoices) else str(alias)
        for name, alias in aliases.items()
    }
    try:
        return model(**{firsts[name]: value for name, value in values.items()})
    except ValueError:
        return None


@given(models())
@settings(max_examples=200)
def test_a_model_that_is_accepted_arrives_as_it_was(drawn: tuple[type[BaseModel], dict[str, Any]]) -> None:
    """Whatever its fields, aliases and options: it is refused before it is published, or it arrives as it was."""
    model, values = drawn
    payload = made(model, values)
    if payload is not None:
        event(outcome(model, payload))


@given(models())
@settings(max_examples=200)
def test_a_dictionary_that_is_accepted_arrives_as_the_model(drawn: tuple[type[BaseModel], dict[str, Any]]) -> None:
    """A handler may return the fields, too: what counts is their JSON."""
    model, values = drawn
    try:
        body, kind = encoder(TypeAdapter(model), "q")(values)
    except PublishFailed:
        return
    arrived = decoder(model)(Envelope(body, content_type=kind))
    assert isinstance(arrived, model)


@given(
    st.sampled_from([str, bytes, str | bytes, int | str, str | None, bytes | None, Any, date, int, list[int], Colour]),
    TEXTS | st.binary(max_size=6) | st.sampled_from(["5", '"5"', "[1]", "null", "2026-03-01", b"5", b"[1]", b'"5"']),
)
@settings(max_examples=200)
def test_text_and_bytes_that_are_accepted_arrive(schema: Any, payload: str | bytes) -> None:
    """As they were, where the schema takes them so."""
    try:
        body, kind = encoder(TypeAdapter(schema), "q")(payload)
    except PublishFailed:
        return
    arrived = decoder(schema)(Envelope(body, content_type=kind))
    if type(arrived) is type(payload):
        assert arrived == payload
