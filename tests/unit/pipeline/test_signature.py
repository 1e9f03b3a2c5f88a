"""A function's parameters decide what it is given, and are judged before anything runs."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from runner import Message
from runner.message import Envelope
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.importer import import_callable
from runner.pipeline.signature import BadArguments, payload_annotation, read_factory, read_handler
from tests.unit.pipeline import lazy_handlers


class Order(BaseModel):
    """A payload."""

    id: int


def plain(order: Order) -> None: ...
def bare(order): ...  # type: ignore[no-untyped-def]
async def wants_message(order: Order, message: Message, carrier: str, retries: int = 3) -> None: ...
async def only_message(message: Message) -> None: ...
async def message_first(message: Message, order: Order) -> None: ...
def yields(order: Order) -> Iterator[int]:
    yield 1


async def yields_async(order: Order) -> AsyncIterator[int]:
    yield 1


def anything(*args: Any, **kwargs: Any) -> None: ...
def nothing() -> None: ...
def two(order: Order, other: str) -> None: ...
def two_messages(a: Message, b: Message) -> None: ...
def message_by_position(order: Order, message: Message, /) -> None: ...
def unknown_annotation(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def keyword_only(*, order: Order) -> None: ...
def odd(order: Iterator[object]) -> None: ...


class Callable:
    async def __call__(self, order: Order) -> None: ...


@pytest.mark.parametrize(
    ("call", "arguments", "kind", "takes_payload", "message"),
    [
        (plain, {}, "function", True, None),
        (bare, {}, "function", True, None),
        (wants_message, {"carrier": "dhl"}, "coroutine", True, "message"),
        (only_message, {}, "coroutine", False, "message"),
        (message_first, {}, "coroutine", True, "message"),
        (message_by_position, {}, "function", True, "message"),
        (yields, {}, "generator", True, None),
        (yields_async, {}, "async generator", True, None),
        (anything, {"x": 1}, "function", True, None),
        (Callable(), {}, "coroutine", True, None),
    ],
)
def test_a_handler_is_read(call: Any, arguments: dict[str, Any], kind: str, takes_payload: bool, message: str) -> None:
    """What it is, and what it wants."""
    handler = read_handler("m:f", call, arguments, takes_payload=True)
    assert (handler.kind, handler.takes_payload, handler.message_parameter) == (kind, takes_payload, message)


@pytest.mark.parametrize(
    ("call", "arguments", "code", "text", "hint"),
    [
        (5, {}, "not-callable", "it is of type int", "function"),
        (nothing, {}, "wrong-parameters", "no parameter for the payload", "first parameter"),
        (keyword_only, {}, "wrong-parameters", "only by name", "remove the"),
        (two, {}, "wrong-parameters", 'needs "other"', "with: {other"),
        (plain, {"carier": 1}, "wrong-parameters", 'no parameter "carier"', "`with:`"),
        (two_messages, {}, "wrong-parameters", "2 parameters", "one of them"),
        (unknown_annotation, {}, "bad-annotation", "Missing", "import"),
        (int, {}, "bad-signature", "cannot be read", "function of your own"),
    ],
)
def test_a_function_that_cannot_be_called_is_blamed(
    call: Any, arguments: dict[str, Any], code: str, text: str, hint: str
) -> None:
    """Exactly, with what to do."""
    with pytest.raises(ImportProblem) as caught:
        read_handler("m:f", call, arguments, takes_payload=True)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert hint in caught.value.hint


def test_a_producer_is_called_without_a_payload() -> None:
    """Its parameters come from `with:` alone."""
    assert not read_handler("m:f", nothing, {}, takes_payload=False).takes_payload
    assert read_handler("m:f", plain, {"order": {"id": 1}}, takes_payload=False).arguments == {"order": Order(id=1)}
    with pytest.raises(ImportProblem, match="nothing provides"):
        read_handler("m:f", plain, {}, takes_payload=False)


def test_the_payload_annotation_is_found() -> None:
    """It is compared with the schema of the source."""
    for call, annotation in ((plain, Order), (bare, inspect.Parameter.empty), (message_first, Order)):
        handler = read_handler("m:f", call, {}, takes_payload=True)
        assert payload_annotation(call, handler) is annotation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", None),
        ("other_parameter", None),
        *((name, "message") for name in ("with_message", "optional", "old_optional", "annotated", "quoted")),
        *((name, "message") for name in ("partial", "traced", "wrapped", "service")),
        *((name, "message") for name in ("service.handle", "Service.static", "Service.of_class")),
    ],
)
def test_annotations_that_are_texts_are_resolved_each_for_itself(name: str, message: str | None) -> None:
    """Behind partials, decorators, objects, methods and classes, and with `Message` imported for type checkers only."""
    path = f"tests.unit.pipeline.lazy_handlers:{name}"
    handler = read_handler(path, import_callable(path), {}, takes_payload=True)
    assert (handler.payload_parameter, handler.message_parameter) == ("order", message)
    assert handler.decode(Envelope(b'{"id": 5}')) == lazy_handlers.Order(id=5)


def sequences(orders: Sequence[lazy_handlers.Order], messages: Annotated[Sequence[Message], 1]) -> None: ...


@pytest.mark.parametrize("call", [lazy_handlers.batch, sequences])
def test_a_batch_may_annotate_its_lists_in_several_ways(call: Any) -> None:
    """`list[Message] | None`, `Sequence[Message]`."""
    handler = read_handler("m:f", call, {}, takes_payload=True, is_batch=True)
    assert (handler.payload_parameter, handler.message_parameter) == ("orders", "messages")
    assert handler.decode(Envelope(b'{"id": 5}')) == lazy_handlers.Order(id=5)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("payload_is_unknown", "bad-annotation", "name 'Decimal' is not defined"),
        ("needed_is_unknown", "bad-annotation", "name 'Decimal' is not defined"),
        ("message_or_order", "wrong-parameters", "among other things"),
        ("Service.handle", "wrong-parameters", "is a method, and needs an object of class Service"),
        ("Service.handel", "attribute-not-found", 'has no "Service.handel"'),
        ("service.handel", "attribute-not-found", 'has no "service.handel"'),
    ],
)
def test_a_text_that_cannot_be_resolved_is_blamed_where_it_matters(name: str, code: str, words: str) -> None:
    """For the payload, and for what nothing provides."""
    path = f"tests.unit.pipeline.lazy_handlers:{name}"
    with pytest.raises(ImportProblem) as caught:
        read_handler(path, import_callable(path), {}, takes_payload=True)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_parameter_with_a_value_may_have_any_annotation() -> None:
    """The value is passed as it is written."""
    handler = read_handler("m:f", lazy_handlers.needed_is_unknown, {"amount": "1.5"}, takes_payload=True)
    assert handler.arguments == {"amount": "1.5"}


def by_position(db: object, limit: int = 5, carrier: str = "", /, *orders: Order) -> None: ...
def after_the_star(message: Message, *, db: object, order: Order | None = None) -> None: ...


@pytest.mark.parametrize(
    ("call", "arguments", "given", "expected"),
    [
        (message_first, {}, {"message": "m", "order": "o"}, ((), {"message": "m", "order": "o"})),
        (plain, {}, {"order": "o"}, (("o",), {})),
        (by_position, {"carrier": "x", "limit": "1"}, {"db": 1, "*orders": "o"}, ((1, 1, "x", "o"), {})),
        (after_the_star, {}, {"message": "m", "db": 1}, ((), {"message": "m", "db": 1})),
    ],
)
def test_what_is_given_by_name_becomes_a_call(
    call: Any, arguments: dict[str, Any], given: dict[str, Any], expected: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    """By position where it must be, and where the payload stands first."""
    handler = read_handler("m:f", call, arguments, takes_payload=True, resources=["db"])
    assert handler.bind({**handler.arguments, **given}) == expected


def by_other_names(call: Any) -> Any:
    @functools.wraps(call)
    def wrapper(message: Any, payload: Any) -> Any:
        return call(message, payload)

    return wrapper


def of_one(call: Any) -> Any:
    @functools.wraps(call)
    def wrapper(payload: Any) -> Any:
        return call(payload)

    return wrapper


def test_it_is_the_function_of_a_decorator_that_is_called() -> None:
    """Its parameters may have other names than those of the function that it wraps, and must be as many."""

    def handle(message: Message, order: Order) -> None: ...

    handler = read_handler("m:f", by_other_names(handle), {}, takes_payload=True)
    positional, named = handler.bind({"message": "m", "order": "o"})
    assert (positional, named) == (("m", "o"), {})
    with pytest.raises(ImportProblem, match="other parameters") as caught:
        read_handler("m:f", of_one(handle), {}, takes_payload=True)
    assert "*args" in caught.value.hint


def gap(order: Order, limit: int = 5, db: object = None, /) -> None: ...


def test_a_default_is_passed_where_something_behind_it_is_given_by_position() -> None:
    """There is no other way to pass it."""
    handler = read_handler("m:f", gap, {}, takes_payload=True, resources=["db"])
    assert handler.bind({"order": "o", "db": 1}) == (("o", 5, 1), {})


def test_a_factory_has_its_arguments_already() -> None:
    """Converted, and by position where it must be; those of C functions, whose parameters are secret, as written."""

    def connect(size: int, /, *, name: str) -> Any:
        return size, name

    assert read_factory("m:f", connect, {"size": "5", "name": "x"})() == (5, "x")
    connection = read_factory("sqlite3:connect", sqlite3.connect, {"database": ":memory:"})()
    assert isinstance(connection, sqlite3.Connection)
    connection.close()
    with pytest.raises(BadArguments):
        read_factory("m:f", connect, {"size": "big", "name": "x"})
