"""Operations: a new project: a pipeline, its handlers, a test that runs it, and what to type first."""

from __future__ import annotations

import re
from pathlib import Path

from runner.errors import RunnerError
from runner.operations.export.deployment import object_name
from runner.operations.yaml_writer import format_scalar


class FilesExist(RunnerError):
    """Files of the new project are there already; nothing is written."""

    exit_code = 2


_PIPELINE = """\
# Orders wait in a queue, are worked on one by one, and each finished one is announced to whoever listens.
version: 1
name: {name}
description: Orders are placed, processed and announced.

queues:
  orders:                          # durable, with a dead-letter queue behind it

events:
  order.processed:                 # every subscriber gets its own copy
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
    """What travels through the queue `orders`, as JSON."""

    number: int
    article: str


@dataclass
class Processed:
    """What the event `order.processed` says."""

    number: int


def place_orders() -> Iterator[Order]:
    """Bring in a few orders, once. In real life: read a file, poll a system, wait for a request."""
    for number in range(1, 4):
        yield Order(number=number, article="lamp")


async def process_order(order: Order) -> Processed:
    """Work on one order. An exception here is tried again after a delay, at last it ends in `orders.dead`."""
    await asyncio.sleep(0.1)
    return Processed(number=order.number)


def write_receipt(processed: Processed) -> None:
    """Hear that an order is done. A plain `def` runs in a thread and may block."""
    log.info("receipt for order %s", processed.number)
'''

_TEST = '''\
"""The pipeline runs on the in-process broker: no RabbitMQ is needed."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parent


def run() -> list[dict]:
    """Run the pipeline until there is nothing left to do, and return its log lines."""
    command = [sys.executable, "-P", "-m", "mqrunner", "up", "pipeline.yaml", "--until-idle"]
    command += ["--broker", "memory", "--log-format", "json"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, encoding="utf-8", timeout=50)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_order_is_processed_and_gets_a_receipt() -> None:
    lines = run()
    handled = Counter(line["subscriber"] for line in lines if line["event"] == "message.handled")
    assert handled == {"process_order": 3, "write_receipt": 3}
    assert not [line for line in lines if line["event"] == "message.dead_lettered"]
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

A message pipeline: `pipeline.yaml` says what is connected with what, `orders.py` has the functions.

    runner validate pipeline.yaml             # every mistake at once, before anything runs
    runner up pipeline.yaml --until-idle      # run it on the in-process broker, until nothing is left to do
    python -m pytest                          # the same as a test; needs `python -m pip install pytest`

All of it works from other folders, too: `orders.py` is looked for beside `pipeline.yaml`.

Run it on RabbitMQ with `runner up pipeline.yaml --broker amqp://user:password@host`. See it with
`runner graph pipeline.yaml`. Editors complete and check `pipeline.yaml` after
`runner schema --output pipeline.schema.json`, with this as its first line:

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
        "test_pipeline.py": _TEST,
        "README.md": _README.format(title=_pipeline_name(name)),
        "Dockerfile": _DOCKERFILE.format(name=object_name([name])),
        ".gitignore": _IGNORED,
    }


def write_project(folder: Path) -> list[Path]:
    """Write a new project and return its files. Raises InTheWay before anything is written, OSError where it cannot."""
    files = {folder / name: text for name, text in template_files(folder.resolve().name).items()}
    present = [str(path) for path in files if path.exists() or path.is_symlink()]
    if present:
        message = "\n".join(["these files are in the way, and nothing was written:", *present])
        raise FilesExist(message, "name another folder: runner init DIR")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return list(files)


def _pipeline_name(folder: str) -> str:
    """Return the name of a folder as that of a pipeline: words with dashes between them, `orders` if it has none."""
    return "-".join(re.findall(r"[^\W_]+", folder))[:60] or "orders"
