"""Handlers of `pipelines/order_placed.yaml`: one event, two listeners."""

import asyncio

import structlog

log = structlog.get_logger()


def place_order() -> str:
    """Place an order; its text is the event's payload."""
    return "订单编号: 54321"


async def send_confirmation(order: str) -> None:
    """Send the customer a mail, which takes two seconds."""
    await asyncio.sleep(2)
    log.info("confirmation sent", order=order)


def update_inventory(order: str) -> None:
    """Take the goods off the shelf: instantly."""
    log.info("inventory updated", order=order)
