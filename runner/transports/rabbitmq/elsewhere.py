"""Finds out whether other sessions still work on messages of our queues, as far as anybody tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aio_pika.abc import AbstractConnection

from runner.pipeline.model import BrokerSettings
from runner.transports.base import Source
from runner.transports.observed import count
from runner.transports.rabbitmq.inquiring import Inquirer
from runner.transports.rabbitmq.management import Management, ManagementFailed
from runner.transports.rabbitmq.topology import depth_or_none

STATISTICS_S = 7.0
"""How old the counts of the management API may be: brokers collect them every 5 seconds."""


class Elsewhere:
    """Asks for other consumers over AMQP, and only if there are some the management API for what they hold."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._management: Management | None = None
        self._absent = ""

    async def held(
        self, connection: AbstractConnection, sources: Sequence[Source], ours: Mapping[str, int], quiet_s: float
    ) -> int | str:
        """See `Transport.held_elsewhere`; `ours` counts our own consumers of each queue."""
        others: dict[str, int] = {}
        async with Inquirer(connection) as inquirer:
            for name in {source.queue for source in sources}:
                depth = await depth_or_none(inquirer, name)
                if depth is not None and depth.consumers > ours.get(name, 0):
                    others[name] = depth.consumers - ours.get(name, 0)
        if not others:
            return 0
        management = await self._find()
        if management is None:
            return f"{_shown(others)}, and what they hold is not known: {self._absent}"
        if quiet_s < STATISTICS_S:
            return 1
        try:
            queues = {str(queue.get("name")): queue for queue in await management.queues()}
        except ManagementFailed as error:
            return f"{_shown(others)}, and what they hold is not known: {error}"
        held = [queues.get(name, {}).get("messages_unacknowledged") for name in others]
        return sum(1 if each is None else each for each in held)  # what the API does not know yet is not empty

    async def _find(self) -> Management | None:
        """Return the management API; where it is absent, it is looked for once."""
        if self._management is None and not self._absent:
            reasons: list[str] = []
            self._management = await Management.find(
                self._settings, self._settings.management_url, on_absent=reasons.append
            )
            self._absent = "".join(reasons[:1])
        return self._management


def _shown(others: Mapping[str, int]) -> str:
    return ", ".join(f'queue "{name}" has {count(number, "other consumer")}' for name, number in sorted(others.items()))
