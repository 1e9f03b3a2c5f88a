"""Delayed messages: the broker holds each in a ladder of queues, whose times to live double from step to step.

A message goes down the ladder, and waits in the queues whose times add up to its delay. So there are 30 queues for all
delays, and a message never waits behind one with a longer delay. Its headers name the queues; an exchange of a step
that a message skips passes it on to the next one (`alternate-exchange`). The routing key is the message's own
all the way. At the bottom, one queue for each destination gives it to the exchange that it is for: a destination that
takes no messages holds up only its own.

Sources: https://www.rabbitmq.com/docs/ttl, https://www.rabbitmq.com/docs/ae,
https://www.rabbitmq.com/docs/quorum-queues#dead-lettering.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

from runner.message import DELAY_TO
from runner.pipeline.model import Destination, delay_prefix
from runner.pipeline.topology import Binding, Exchange, Queue, Topology, merge_topologies

STEPS_MS = tuple(50 * 2**number for number in range(30))
"""The time to live of each step, ascending. Together they are 621 days."""

HOLDS_DELAYED = re.compile(r"(?P<pipeline>.+)\.delay\.(\d+|to\..+)")
"""The names of the queues that hold delayed messages."""

_STEP = "x-runner-delay-"
_HOLD = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


def bottom_name(prefix: str) -> str:
    """Return the name of the exchange at the bottom of the ladder."""
    return f"{prefix}.to"


def step_name(prefix: str, milliseconds: int) -> str:
    """Return the name of a step's queue and of the exchange in front of it, as in `orders.delay.6400`."""
    return f"{prefix}.{milliseconds}"


def arrival_name(prefix: str, destination: str) -> str:
    """Return the name of the queue that gives messages to their destination, as in `orders.delay.to.reminders`."""
    return f"{bottom_name(prefix)}.{destination}"


@lru_cache(1024)
def delay_steps(milliseconds: int, rounding: float) -> tuple[int, ...]:
    """Return the steps that add up to a delay of at least this much, the longest first.

    It is longer by less than the first step, or by at most `rounding`, a share of it: then it has fewer steps.
    """
    units = -(-milliseconds // STEPS_MS[0])
    chosen = units
    for shift in range(1, units.bit_length()):
        rounded = -(-units >> shift) << shift
        if rounded > units * (1 + rounding):
            break
        chosen = rounded
    return tuple(step for number, step in reversed([*enumerate(STEPS_MS)]) if chosen >> number & 1)


def delay_in(headers: Mapping[str, Any], below: float = math.inf) -> timedelta | None:
    """Return how long a message is delayed that has these headers, in steps below one; None for one that is not."""
    if DELAY_TO not in headers:
        return None
    return timedelta(milliseconds=sum(step for step in STEPS_MS if step < below and f"{_STEP}{step}" in headers))


def without_delay(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without those that lead a message down the ladder."""
    return {name: value for name, value in headers.items() if not name.startswith(_STEP)}


def delay_headers(steps: Iterable[int], destination: str) -> dict[str, Any]:
    """Return the headers that lead a message down the ladder to a destination."""
    return {DELAY_TO: destination, **{f"{_STEP}{step}": True for step in steps}}


def delay_topology(pipeline: str, *destinations: Destination) -> Topology:
    """Return what holds the delayed messages of a pipeline for some of its destinations; nothing without one."""
    prefix = delay_prefix(pipeline)
    arrivals = [_arrival(prefix, destination) for destination in destinations]
    return merge_topologies([_ladder(prefix), *arrivals]) if arrivals else Topology()


def _ladder(prefix: str) -> Topology:
    """Return the steps of the ladder and its bottom. It is the same for all destinations of a pipeline."""
    exchanges, queues, bindings = [Exchange(bottom_name(prefix), "headers")], [], []
    for step in STEPS_MS:
        name, below = step_name(prefix, step), exchanges[-1].name
        exchanges.append(Exchange(name, "headers", arguments={"alternate-exchange": below}))
        queues.append(Queue(name, arguments={**_HOLD, "x-message-ttl": step, "x-dead-letter-exchange": below}))
        bindings.append(Binding(name, name, arguments={"x-match": "all-with-x", f"{_STEP}{step}": True}))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _arrival(prefix: str, destination: Destination) -> Topology:
    """Return the queue that gives delayed messages to a destination.

    It keeps what the destination does not take, unless that is an event that may go unheard.
    """
    name, hold = arrival_name(prefix, destination.name), _HOLD
    if not destination.needs_queue:
        hold = {"x-queue-type": "quorum"}
    arguments = {**hold, "x-message-ttl": 0, "x-dead-letter-exchange": destination.address.exchange}
    match = {"x-match": "all-with-x", DELAY_TO: destination.name}
    return Topology(
        queues=(Queue(name, arguments=arguments),), bindings=(Binding(bottom_name(prefix), name, "", match),)
    )
