"""A function's parameters decide what it is given, and are judged before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from runner import Message
from runner.pipeline.importing import ImportBlame
from runner.pipeline.signature import payload_annotation, read_handler


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
        (5, {}, "not-callable", "an int", "function"),
        (nothing, {}, "wrong-parameters", "no parameter for the payload", "first parameter"),
        (keyword_only, {}, "wrong-parameters", "no parameter for the payload", "first parameter"),
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
    with pytest.raises(ImportBlame) as caught:
        read_handler("m:f", call, arguments, takes_payload=True)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert hint in caught.value.hint


def test_a_producer_is_called_without_a_payload() -> None:
    """Its parameters come from `with:` alone."""
    assert not read_handler("m:f", nothing, {}, takes_payload=False).takes_payload
    assert read_handler("m:f", plain, {"order": {"id": 1}}, takes_payload=False).arguments == {"order": Order(id=1)}
    with pytest.raises(ImportBlame, match="nothing provides"):
        read_handler("m:f", plain, {}, takes_payload=False)


def test_the_payload_annotation_is_found() -> None:
    """It is compared with the schema of the source."""
    for call, annotation in ((plain, Order), (bare, inspect.Parameter.empty), (message_first, Order)):
        handler = read_handler("m:f", call, {}, takes_payload=True)
        assert payload_annotation(call, handler) is annotation
