"""What the log says that a line of RabbitMQ has is what it does: another program tries it."""

from __future__ import annotations

from typing import Any

import pika

from runner.transports.rabbitmq.broker_features import features_of
from tests.foreign import Foreign
from tests.node import Broker

IN_ORDER = [0, 5, 1, 31, 2, 6]
IN_TWO_CLASSES = [5, 31, 0, 6, 1, 2]
"""Of 5 and above two come for one of the others."""
QUORUM = {"x-queue-type": "quorum"}


def test_quorum_priorities(rabbitmq: Broker, foreign: Foreign, unique: str) -> None:
    """None, two, or 32 of them."""
    features = features_of(rabbitmq.line)
    wanted = IN_TWO_CLASSES if "2 quorum priorities" in features else IN_ORDER
    wanted = sorted(IN_ORDER, reverse=True) if "32 quorum priorities" in features else wanted
    channel = foreign.channel
    channel.queue_declare(unique, durable=True, arguments=QUORUM)
    for priority in IN_ORDER:
        foreign.publish_confirmed(unique, f"{priority}".encode(), priority=priority)
    assert [int(got.body) for got in foreign.take(unique)] == wanted
    channel.queue_delete(unique)


def test_returns_count_towards_the_delivery_limit_or_do_not(rabbitmq: Broker, foreign: Foreign, unique: str) -> None:
    """With a limit of 2 a message that was given back five times is dropped, or still there."""
    channel = foreign.channel
    channel.queue_declare(unique, durable=True, arguments={**QUORUM, "x-delivery-limit": 2})
    foreign.publish_confirmed(unique, b"given back")
    for _ in range(5):
        frame = taken(channel, unique)
        if frame is not None:
            channel.basic_nack(frame.delivery_tag, requeue=True)
    assert (taken(channel, unique) is not None) == ("uncounted returns" in features_of(rabbitmq.line))
    channel.queue_delete(unique)


def taken(channel: Any, queue: str) -> pika.spec.Basic.GetOk | None:
    """Return the frame of the message that a queue hands out, None where it is empty."""
    frame: pika.spec.Basic.GetOk | None = channel.basic_get(queue)[0]
    return frame
