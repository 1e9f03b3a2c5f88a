"""Makes sure that the broker still knows our consumers: connected and consuming nothing is how others lose a night.

By a passive declaration of each queue, which tells its messages and consumers and needs no permission.
Source: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout (one of the ways to lose a consumer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runner.errors import BrokerUnavailable
from runner.transports.rabbitmq.channels import QueueCounts
from runner.transports.rabbitmq.connection import (
    CHANNEL_ERRORS,
    ConnectionClosedByUs,
    ReconnectingConnection,
    was_cancelled,
)
from runner.transports.rabbitmq.consumer import Consumer
from runner.transports.rabbitmq.topology import queue_counts_or_none
from runner.transports.rabbitmq.topology_probe import TopologyProbe

WATCHDOG_S = 10.0


async def watch_consumers(link: ReconnectingConnection, consumers: Sequence[Consumer], every_s: float) -> None:
    """Look at all consumers now and then, until the link is closed or this is cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await _check_consumers(link, consumers)
        except ConnectionClosedByUs:
            return
        except (BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # what is wrong with the connection is noticed by its link
        except asyncio.CancelledError:
            if was_cancelled():
                raise


async def _check_consumers(link: ReconnectingConnection, consumers: Sequence[Consumer]) -> None:
    async with TopologyProbe(await link.ready()) as probe:
        for consumer in consumers:
            consumer_channel = consumer.consumer_channel
            if consumer_channel is not None and consumer.is_live:
                found = await queue_counts_or_none(probe, consumer.queue)
                consumer.check_progress(consumer_channel, *(found or QueueCounts(0, 0)))
