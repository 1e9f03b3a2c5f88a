"""Handlers with habits of other libraries."""

import asyncio
import json
import logging

from runner import Message, Publish, Reject, RetryLater

log = logging.getLogger(__name__)


def receive(message: Message) -> None:
    order = json.loads(message.body.decode())
    log.info("order %s", order["id"])
    message.ack()


def ship(order: dict) -> None:
    log.info("shipped", order=order["id"])
    log.info("shipped {} to {}", order["id"], order["city"])
    log.warning("late", order["id"])
    log.info("%s of %s", order["id"])
    log.error("100%% of %s", order["id"], exc_info=True)


def pass_on(order: dict):
    if order["paid"]:
        return Publish(order, queue="paid", headers={}, ttl="1h")
    raise RetryLater(countdown=30)


def forget(order: dict):
    def price():
        return order["cents"]

    print(price())


async def notify(order: dict) -> None:
    """Notify somebody of an order."""


async def ship_and_notify(order: dict) -> None:
    notify(order)
    asyncio.sleep(3)


def ship_and_wait(order: dict) -> None:
    notify(order)


def lines(order: dict):
    yield order["lines"]
    return order["id"]


async def price_of(order: dict) -> dict:
    return {"id": order["id"], "cents": 100}


async def price(order: dict) -> dict:
    return price_of(order)


async def book(order: dict) -> None:
    priced = price_of(order)
    print(f"{priced['cents']} cents")


def check(order: dict):
    if not order["lines"]:
        return Reject("no lines")
    if order["lines"] > 10:
        Reject("too many lines")
    return None


def ask(order: dict) -> None:
    if order["late"]:
        raise RetryLater("the carrier is busy", countdown=1)
    if order["lost"]:
        raise RetryLater("the carrier is away")
    if order["odd"]:
        raise RetryLater("1m", f"the carrier has no {order['odd']} parcels")


def register(order: dict) -> None:
    ask.delay(order["id"])
    check.apply_async(order, 1)
    ask(order)


class Rates:
    """Asks a bank."""

    async def get(self, currency: str) -> float:
        return 1.08 if currency == "USD" else 1.0


async def convert(order: dict, rates: Rates) -> float:
    rates.get("CHF")
    rate = rates.get("USD")
    return rate * order["cents"] + await rates.get("EUR")


async def all_at_once(order: dict) -> None:
    first = price_of(order)
    second = price_of(order)
    await asyncio.gather(first, second)
    raise RetryLater("30s")
