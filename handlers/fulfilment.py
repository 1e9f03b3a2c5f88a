"""Handlers of `pipelines/fulfilment.yaml`: a shop with a warehouse, an accounts department and a moody carrier."""

import asyncio
from collections.abc import Iterator

import structlog
from pydantic import BaseModel, Field

from runner import Message, Reject

log = structlog.get_logger()

UNKNOWN_ARTICLE = "unobtainium"


class CarrierUnavailable(Exception):
    """The carrier does not answer; it usually does a moment later."""


class OrderPaid(BaseModel):
    """An order whose money has arrived."""

    order: int
    article: str
    quantity: int = Field(gt=0)


class OrderReserved(BaseModel):
    """An order whose articles lie in a box."""

    order: int
    shelf: str


class OrderShipped(BaseModel):
    """An order that is on its way."""

    order: int
    parcel: str


def paid_orders(count: int) -> Iterator[OrderPaid]:
    """Bring in some paid orders; the last one is for something that the shop does not have."""
    for number in range(1001, 1000 + count):
        yield OrderPaid(order=number, article="lamp" if number % 2 else "chair", quantity=1 + number % 3)
    yield OrderPaid(order=1000 + count, article=UNKNOWN_ARTICLE, quantity=1)


async def reserve_stock(paid: OrderPaid) -> OrderReserved:
    """Put the articles into a box. Trying again cannot help where there is no such article."""
    if paid.article == UNKNOWN_ARTICLE:
        raise Reject(f"there is no article called {paid.article}")
    await asyncio.sleep(0.05)
    return OrderReserved(order=paid.order, shelf=f"{paid.article}-{paid.order % 7}")


def send_receipt(paid: OrderPaid) -> None:
    """Write the receipt: blocking code, so it runs in a thread."""
    log.info("receipt written", order=paid.order, quantity=paid.quantity)


async def ship_order(reserved: OrderReserved, message: Message) -> OrderShipped:
    """Hand the box to the carrier, who does not answer every third order's first call."""
    if reserved.order % 3 == 0 and message.attempt == 1:
        raise CarrierUnavailable("no answer from the carrier")
    await asyncio.sleep(0.1)
    return OrderShipped(order=reserved.order, parcel=f"P{reserved.order}")


def audit(event: dict[str, object], message: Message) -> None:
    """Keep a record of every event about orders."""
    log.info("audited", event_name=message.event, order=event["order"])
