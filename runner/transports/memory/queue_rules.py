"""Engine: reads the rules of a queue from its `x-` arguments, once, when it is declared."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

from runner.errors import TopologyMismatch
from runner.pipeline.topology import Queue

Overflow = Literal["drop-head", "reject-publish", "reject-publish-dlx"]


class QueueRules(NamedTuple):
    """The rules of a queue; None for a rule that it does not set."""

    ttl_s: float | None
    max_length: int | None
    max_bytes: int | None
    overflow: Overflow
    max_priority: int | None
    delivery_limit: int | None
    is_single_active: bool
    dead_letter_exchange: str | None
    dead_letter_key: str | None
    is_at_least_once: bool


def read_queue_rules(queue: Queue) -> QueueRules:
    """Return the rules in a queue's arguments. Raises TopologyMismatch for values that RabbitMQ refuses too."""
    arguments = queue.arguments
    if arguments.get("x-queue-type") == "stream":
        raise TopologyMismatch(f'queue "{queue.name}": only RabbitMQ has streams', "run it on RabbitMQ")
    ttl_ms = _number(queue, "x-message-ttl")
    overflow = _text(queue, "x-overflow") or "drop-head"
    if overflow not in get_args(Overflow):
        raise _refused(queue, "x-overflow", f"one of {', '.join(get_args(Overflow))}")
    return QueueRules(
        ttl_s=None if ttl_ms is None else ttl_ms / 1000,
        max_length=_number(queue, "x-max-length"),
        max_bytes=_number(queue, "x-max-length-bytes"),
        overflow=cast(Overflow, overflow),
        max_priority=_number(queue, "x-max-priority", at_most=255),
        delivery_limit=_number(queue, "x-delivery-limit"),
        is_single_active=bool(arguments.get("x-single-active-consumer", False)),
        dead_letter_exchange=_text(queue, "x-dead-letter-exchange"),
        dead_letter_key=_text(queue, "x-dead-letter-routing-key"),
        # RabbitMQ requires reject-publish for that.
        is_at_least_once=overflow == "reject-publish" and arguments.get("x-dead-letter-strategy") == "at-least-once",
    )


def _number(queue: Queue, name: str, at_most: int = 2**63 - 1) -> int | None:
    value = queue.arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most:
        raise _refused(queue, name, "a whole number, 0 or more")
    return value


def _text(queue: Queue, name: str) -> str | None:
    value = queue.arguments.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _refused(queue, name, "text")


def _refused(queue: Queue, name: str, expected: str) -> TopologyMismatch:
    return TopologyMismatch(f'queue "{queue.name}": {name} is {queue.arguments[name]!r}, it must be {expected}')
