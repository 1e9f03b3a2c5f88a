"""The project that `runner init` writes: a pipeline, its handlers, tests in YAML and in Python, a README."""

from __future__ import annotations

import re
from pathlib import Path

from runner.errors import RunnerError
from runner.operations.export.deployment import object_name
from runner.operations.yaml_writer import format_scalar


class FilesExist(RunnerError):
    """Files of the new project exist already. Nothing is written."""

    exit_code = 2


_PIPELINE = """\
# Orders wait in a queue and are processed. Each processed order is announced as an event.
version: 1
name: {name}
description: Orders are placed, processed and announced.

queues:
  orders:                          # durable, with a dead-letter queue behind it

events:
  order.processed:                 # each subscriber of it gets a copy
    description: An order is done.

producers:
  place_orders:
    handler: orders:place_orders   # module:function
    to: orders

subscribers:
  process_order:
    from: orders
    handler: orders:process_order
    to: order.processed            # what the handler returns
    concurrency: 4
    retry: {{attempts: 3, delay: 200ms}}

  write_receipt:
    from: order.processed
    handler: orders:write_receipt
"""

_HANDLERS = '''\
"""Handlers of pipeline.yaml: plain functions. What they return or yield is published to their `to`."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass
class Order:
    """The payload of the queue `orders`, sent as JSON."""

    number: int
    article: str


@dataclass
class Processed:
    """The payload of the event `order.processed`."""

    number: int


def place_orders() -> Iterator[Order]:
    """Publish a few orders, once. A real producer reads a file, polls a system, or runs on a schedule."""
    for number in range(1, 4):
        yield Order(number=number, article="lamp")


async def process_order(order: Order) -> Processed:
    """Process one order. If it raises, the order is retried with a delay, and at last put into `orders.dead`."""
    await asyncio.sleep(0.1)
    return Processed(number=order.number)


def write_receipt(processed: Processed) -> None:
    """React to a processed order. A plain `def` runs in a thread and may block."""
    log.info("receipt for order %s", processed.number)
'''

_TESTS = """\
# Tests of pipeline.yaml, on the in-process broker and with virtual time: `runner test .`, or `python -m pytest`.
version: 1
pipelines: [pipeline.yaml]

tests:
  every order is processed and gets a receipt:
    expect:
      handled: {process_order: 3, write_receipt: 3}
      published: [{to: orders, times: 3}, {to: order.processed, times: 3}]
      dead: none

  an order that cannot be processed is given up after three attempts:
    only: [process_order, write_receipt]
    replace: {process_order: {raises: ConnectionError}}
    publish: [{to: orders, payload: {number: 7, article: lamp}, id: order-7}]
    expect:
      retried: {process_order: {after: [200ms, 400ms]}}
      dead: [{queue: orders, reason: exhausted, error_type: ConnectionError, id: order-7}]
"""

_TEST = '''\
"""The pipeline, tested in Python: on the in-process broker, with virtual time."""

from pathlib import Path

from runner.testing import running_sync

PIPELINE = Path(__file__).resolve().parent / "pipeline.yaml"


def test_a_processed_order_is_announced() -> None:
    with running_sync(PIPELINE, only=["process_order", "write_receipt"]) as pipeline:
        pipeline.publish("orders", {"number": 7, "article": "lamp"})
        pipeline.until_idle()
        (announced,) = pipeline.published("order.processed")
        assert announced.payload == {"number": 7}
        assert len(pipeline.handled("write_receipt")) == 1
'''

_DOCKERFILE = """\
# docker build -t {name} . && docker run --init --rm -p 127.0.0.1:8080:8080 {name}
FROM python:3.13-slim
RUN pip install --no-cache-dir "mqrunner[http]"
WORKDIR /app
COPY pipeline.yaml *.py ./
USER nobody
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \\
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
CMD ["runner", "up", "pipeline.yaml", "--http", "0.0.0.0:8080"]
"""

_README = """\
# {title}

A message pipeline: `pipeline.yaml` connects queues, events and functions; the functions are in `orders.py`.

    runner validate pipeline.yaml             # find every mistake before anything runs
    runner up pipeline.yaml --until-idle      # run it on the in-process broker until no work is left
    runner test .                             # run the tests in `pipeline.test.yaml`
    python -m pytest                          # run them and `test_pipeline.py`; needs `python -m pip install pytest`

This works from other folders too: `orders.py` is found beside `pipeline.yaml`.

Keep its messages in a file with `runner up pipeline.yaml --broker file:data/pipeline.queue`, or run it on RabbitMQ
with `--broker amqp://user:password@host`. Draw it with `runner graph pipeline.yaml`. For completion and checks in your
editor, run `runner schema --output pipeline.schema.json` and make this the first line of `pipeline.yaml`:

    # yaml-language-server: $schema=pipeline.schema.json
"""

_IGNORED = """\
__pycache__/
.pytest_cache/
.venv/
.env
pipeline.schema.json
"""


def template_files(name: str) -> dict[str, str]:
    """Return the files of a new project in a folder of this name."""
    return {
        "pipeline.yaml": _PIPELINE.format(name=format_scalar(_pipeline_name(name))),
        "orders.py": _HANDLERS,
        "pipeline.test.yaml": _TESTS,
        "test_pipeline.py": _TEST,
        "README.md": _README.format(title=_pipeline_name(name)),
        "Dockerfile": _DOCKERFILE.format(name=object_name([name])),
        ".gitignore": _IGNORED,
    }


def write_project(folder: Path) -> list[Path]:
    """Write a new project and return its files. Raises FilesExist before anything is written, and OSError."""
    files = {folder / name: text for name, text in template_files(folder.resolve().name).items()}
    present = [str(path) for path in files if path.exists() or path.is_symlink()]
    if present:
        message = "\n".join(["these files exist already; nothing was written:", *present])
        raise FilesExist(message, "choose another folder: runner init DIR")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return list(files)


def _pipeline_name(folder: str) -> str:
    """Return a pipeline name for a folder: its words joined by dashes, or `orders` if it has none."""
    return "-".join(re.findall(r"[^\W_]+", folder))[:60] or "orders"
