"""Engine: the headers of a dead letter, and the queues that it must not reach again, by RabbitMQ's rules.

Sources: https://www.rabbitmq.com/docs/dlx and rabbit_dead_letter.erl of RabbitMQ 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from runner.message import Address, Envelope
from runner.transports.amqp_limits import copy_headers
from runner.transports.memory.queue_buffer import QueuedMessage

DeathReason = Literal["expired", "maxlen", "delivery_limit", "rejected"]


def dead_letter_envelope(message: QueuedMessage, queue: str, reason: DeathReason, now: datetime) -> Envelope:
    """Return the envelope of a dead letter: with its deaths in `x-death`, the latest first, and no expiration."""
    envelope = copy_headers(message.envelope)
    headers = dict(envelope.headers)
    deaths = read_deaths(headers)
    earlier = next((death for death in deaths if (death.get("queue"), death.get("reason")) == (queue, reason)), None)
    if earlier is None:
        latest = _first_death(envelope, message.address, queue, reason, now)
    else:
        deaths.remove(earlier)
        latest = {**earlier, "count": int(earlier.get("count", 0)) + 1}
    headers["x-death"] = [latest, *deaths]
    headers.setdefault("x-first-death-exchange", message.address.exchange)
    headers.setdefault("x-first-death-queue", queue)
    headers.setdefault("x-first-death-reason", reason)
    return envelope._replace(headers=headers, expiration_ms=None)


def read_deaths(headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of `x-death`, the latest first. Anything else that a publisher put there is ignored."""
    deaths = headers.get("x-death")
    return [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []


def is_cycle(queue: str, deaths: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a message has died in this queue before, without a rejection since. Then it is dropped."""
    for death in deaths:
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False


def _first_death(
    envelope: Envelope, address: Address, queue: str, reason: DeathReason, now: datetime
) -> dict[str, Any]:
    death = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": now.replace(microsecond=0),
        "exchange": address.exchange,
        "routing-keys": [address.key],
    }
    if envelope.expiration_ms is not None:
        death["original-expiration"] = str(envelope.expiration_ms)
    return death
