"""Entry: pika's BlockingConnection, as in its documentation: `basic_consume`, `start_consuming`, an ack for each."""

from __future__ import annotations

import json
import signal

import pika
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks.entries.job import Entry, Job, module
from benchmarks.ledger import from_environment

PLAIN_PIKA = Entry(
    name="pika",
    command=module(__spec__.name),
    works=frozenset({"consume"}),
    requires=("pika",),
    share=2.0,
)


def _main(job: Job) -> None:
    ledger = from_environment()
    connection = pika.BlockingConnection(pika.URLParameters(f"{job.url}%2F"))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=job.prefetch)

    def on_message(
        opened: BlockingChannel, method: pika.spec.Basic.Deliver, _: pika.BasicProperties, body: bytes
    ) -> None:
        ledger.note(json.loads(body)["number"])
        opened.basic_ack(method.delivery_tag)

    channel.basic_consume(job.source, on_message)
    signal.signal(signal.SIGTERM, lambda *_: connection.add_callback_threadsafe(channel.stop_consuming))
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    _main(Job.from_environment())
