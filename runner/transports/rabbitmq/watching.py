"""Makes sure that the broker still knows our consumers: connected and consuming nothing is how others lose a night.

By a passive declaration of each queue, which tells its messages and consumers and needs no permission.
Source: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout (one of the ways to lose a consumer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runner.errors import BrokerUnavailable
from runner.transports.rabbitmq.channels import Depth
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, was_cancelled
from runner.transports.rabbitmq.consumer import Consumer
from runner.transports.rabbitmq.inquiring import Inquirer
from runner.transports.rabbitmq.topology import depth_or_none

WATCH_S = 10.0


async def watch(link: Link, consumers: Sequence[Consumer], every_s: float) -> None:
    """Look at all consumers now and then, until the link is closed or this is cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await _look(link, consumers)
        except LinkClosed:
            return
        except (BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # what is wrong with the connection is noticed by its link
        except asyncio.CancelledError:
            if was_cancelled():
                raise


async def _look(link: Link, consumers: Sequence[Consumer]) -> None:
    async with Inquirer(await link.ready()) as inquirer:
        for consumer in consumers:
            registration = consumer.registration
            if registration is not None and consumer.is_live:
                found = await depth_or_none(inquirer, consumer.queue)
                consumer.look_at(registration, *(found or Depth(0, 0)))
