"""Deliveries made by hand, for tests of code that only reads them."""

from __future__ import annotations

from runner.message import Envelope
from runner.outcome import Outcome
from runner.transports.base import Delivery, SubscriptionOptions


class NoSubscription:
    """Stands for the channel of a delivery that did not come from a broker: it knows nothing about it."""

    is_open = False

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        return False

    async def release(self, delivery: Delivery) -> bool:
        return False

    def was_handled(self, delivery: Delivery) -> bool:
        return False

    def earlier_outcome_of(self, delivery: Delivery) -> None:
        return None

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        pass


def delivery_of(
    envelope: Envelope,
    options: SubscriptionOptions,
    *,
    exchange: str = "",
    routing_key: str = "q",
    is_redelivered: bool = False,
    failed_deliveries: int = 0,
) -> Delivery:
    """Return a delivery of `envelope` that was published to `exchange` with `routing_key`."""
    return Delivery(
        envelope,
        options,
        exchange=exchange,
        routing_key=routing_key,
        is_redelivered=is_redelivered,
        failed_deliveries=failed_deliveries,
        delivery_tag=0,
        subscription=NoSubscription(),
    )
