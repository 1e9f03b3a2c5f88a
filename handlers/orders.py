"""Handlers of `pipelines/orders.yaml`: orders as plain text."""

import asyncio
from collections.abc import Iterator

import structlog

log = structlog.get_logger()


def place_orders() -> Iterator[str]:
    """Place a few orders, and be done: nobody waits until they are processed."""
    for number in range(12345, 12351):
        yield f"订单编号: {number}"


async def process_order(order: str) -> None:
    """Work on one order for about two seconds."""
    log.info("processing", order=order)
    await asyncio.sleep(2)
