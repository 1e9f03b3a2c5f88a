"""Finds out whether other sessions hold messages of a pipeline's queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aio_pika.abc import AbstractConnection

from runner.pipeline.model import BrokerSettings
from runner.transports.base import SubscriptionOptions
from runner.transports.rabbitmq.management_api import ManagementApi, ManagementFailed
from runner.transports.rabbitmq.topology_probe import TopologyProbe
from runner.units import pluralize

STATISTICS_S = 12.0
"""How old the counts of the management API may be.

Quorum queues report every 5 seconds, and reports are collected every 5 seconds. RabbitMQ 4.3 showed an unacknowledged
message after 9 seconds.
"""


class OtherConsumers:
    """Counts other consumers over AMQP, and, only if there are some, asks the management API what they hold."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._management: ManagementApi | None = None
        self._absent = ""

    async def held(
        self,
        connection: AbstractConnection,
        all_options: Sequence[SubscriptionOptions],
        own: Mapping[str, int],
        quiet_s: float,
    ) -> int | str:
        """See `Transport.count_held_elsewhere`; `own` counts our own consumers of each queue."""
        others: dict[str, int] = {}
        async with TopologyProbe(connection) as probe:
            for name in {options.queue for options in all_options}:
                depth = await probe.counts(name)
                if depth is not None and depth.consumers > own.get(name, 0):
                    others[name] = depth.consumers - own.get(name, 0)
        if not others:
            return 0
        management = await self._find()
        if management is None:
            return f"{_shown(others)}, and what they hold is not known: {self._absent}"
        if quiet_s < STATISTICS_S:
            return 1
        try:
            queues = await management.queues()
        except ManagementFailed as error:
            return f"{_shown(others)}, and what they hold is not known: {error}"
        held = [queues.get(name, {}).get("messages_unacknowledged") for name in others]
        return sum(1 if each is None else each for each in held)  # what the API does not know yet is not empty

    async def _find(self) -> ManagementApi | None:
        """Return the management API. It is looked for only once."""
        if self._management is None and not self._absent:
            self._management, self._absent = await ManagementApi.find(self._settings, self._settings.management_url)
        return self._management


def _shown(others: Mapping[str, int]) -> str:
    return ", ".join(
        f'queue "{name}" has {pluralize(number, "other consumer")}' for name, number in sorted(others.items())
    )
