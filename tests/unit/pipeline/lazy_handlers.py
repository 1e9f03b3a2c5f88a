"""Handlers whose annotations are texts, as `from __future__ import annotations` makes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Optional

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from runner import Message
    from runner import Message as Envelope


class Order(BaseModel):
    """A payload."""

    id: int


def plain(order: Order) -> Iterator[str]:
    yield "x"


def other_parameter(order: Order, connection: Decimal | None = None) -> None: ...


def with_message(order: Order, message: Message) -> None: ...
def optional(order: Order, message: Message | None = None) -> None: ...
def old_optional(order: Order, message: Optional[Envelope] = None) -> None: ...  # noqa: UP045 - as people write it
def annotated(order: Order, message: Annotated[Message, "the envelope"]) -> None: ...
def quoted(order: "Order", message: "Envelope") -> None: ...  # noqa: UP037 - as people write it
def batch(orders: list[Order], messages: list[Message] | None = None) -> None: ...
def payload_is_unknown(order: Decimal) -> None: ...
def needed_is_unknown(order: Order, amount: Decimal) -> None: ...
def message_or_order(order: Message | Order) -> None: ...


def _first(carrier: str, order: Order, message: Message) -> None: ...


partial = functools.partial(_first, "dhl")


class Traced:
    """A decorator that is a class."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        functools.update_wrapper(self, call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


@Traced
def traced(order: Order, message: Message) -> None: ...


def wrapping(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as most decorators do."""

    @functools.wraps(call)
    def wrapper(payload: Any, **kwargs: Any) -> Any:
        return call(payload, **kwargs)

    return wrapper


@wrapping
@wrapping
def wrapped(order: Order, message: Message) -> None: ...


class Service:
    """Methods as handlers."""

    def handle(self, order: Order, message: Message) -> None: ...
    def __call__(self, order: Order, message: Message) -> None: ...
    @staticmethod
    def static(order: Order, message: Message) -> None: ...
    @classmethod
    def of_class(cls, order: Order, message: Message) -> None: ...


service = Service()
