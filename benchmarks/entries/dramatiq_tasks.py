"""The application of the Dramatiq entry: actors. Run as a program, it sends the messages."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.entries.job import Job, body
from benchmarks.ledger import from_environment

JOB = Job.from_environment()

broker = RabbitmqBroker(url=JOB.url, confirm_delivery=JOB.work == "hop")
dramatiq.set_broker(broker)
ledger = from_environment()


@dramatiq.actor(queue_name=JOB.target or "unused")
def ignore(payload: dict[str, Any]) -> None:
    """Take what has been sent on; nobody runs this here."""


@dramatiq.actor(queue_name=JOB.source)
def consume(payload: dict[str, Any]) -> None:
    """Count one message."""
    ledger.note(payload["number"])


@dramatiq.actor(queue_name=JOB.source)
def hop(payload: dict[str, Any]) -> None:
    """Count one message and send it on."""
    ledger.note(payload["number"])
    ignore.send(payload)


def _send() -> None:
    work = hop if JOB.work == "hop" else consume
    for queue in (JOB.source, JOB.target):
        if queue:
            broker.declare_queue(queue, ensure=True)
    for number in range(JOB.count):
        work.send(body(number, JOB.body_bytes))
    broker.close()


if __name__ == "__main__":
    _send()
