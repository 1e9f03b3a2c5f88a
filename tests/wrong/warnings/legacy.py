"""Handlers with habits of other libraries."""

import asyncio
import json
import logging

from runner import Message, Publish, RetryLater

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
