"""The application of the Celery entries: two tasks. Run as a program, it sends the messages."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from benchmarks.entries.job import Job, body
from benchmarks.ledger import from_environment

JOB = Job.from_environment()


def _queue(name: str) -> Queue:
    return Queue(name, routing_key=name, durable=True, queue_arguments={"x-queue-type": JOB.kind})


app = Celery("bench", broker=JOB.url)
app.conf.update(
    task_queues=[_queue(name) for name in (JOB.source, JOB.target) if name],
    task_acks_late=True,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": JOB.work == "hop"},
)
ledger = from_environment()


@app.task(name="consume")
def consume(payload: dict[str, Any]) -> None:
    """Count one message."""
    ledger.note(payload["number"])


@app.task(name="hop")
def hop(payload: dict[str, Any]) -> None:
    """Count one message and send it on."""
    ledger.note(payload["number"])
    consume.apply_async((payload,), queue=JOB.target)


def _send() -> None:
    """Send, and close the connection in good order: there are no confirms, and the last messages were lost at times."""
    task = hop if JOB.work == "hop" else consume
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for queue in app.conf.task_queues:
            queue(producer.channel).declare()
        for number in range(JOB.count):
            task.apply_async((body(number, JOB.body_bytes),), queue=JOB.source, producer=producer)


if __name__ == "__main__":
    _send()
