"""How ours goes with more of everything: processes, subscribers, bytes, prefetch, wait queues.

python -m benchmarks.scaling [--quick] [--only WORD] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import rabbit
from benchmarks.entries.job import Job
from benchmarks.entries.mqrunner import write
from benchmarks.harness import (
    ROOT,
    BenchmarkError,
    Measurements,
    Spread,
    bench_folder,
    broker,
    disturbed,
    measure_in_turns,
    report,
    run_benchmark,
    spread_of,
    table,
)
from benchmarks.noise import Noise
from benchmarks.process_group import ProcessGroup
from tests.node import Node

RUNS = 3
TIMEOUT_S = 120.0
QUICK = 0.2
FIRST_DELAY_MS = 110

_HEAD = """\
version: 1
name: {name}
python_path: ["{root}"]
broker: {url}
logging: {{messages: false}}
defaults:
  queue: {{type: classic, declare: false, dead_letter: false}}
  subscriber:
    handler: benchmarks.entries.handlers:{handler}
    concurrency: {prefetch}
    prefetch: {prefetch}
"""

_STARTED = '"event": "pipeline.started"'

_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One size of one thing. Messages are spread over the queues; each queue has a subscriber."""

    what: str
    size: str
    messages: int
    processes: int = 1
    queues: int = 1
    prefetch: int = 100
    body_bytes: int = 0
    is_filled_late: bool = False
    """The messages come when the pipeline runs: with many queues, the first would else be empty before the last has its
    consumer. What is measured includes what the publisher costs the machine, the same for each size."""
    is_retrying: bool = False
    """Each message fails once, and each subscriber has a delay of its own, which is a wait queue of its own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: how long until the pipeline ran, messages a second, and CPU time for each in microseconds."""

    start_s: float
    rate: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Row:
    """What came out for one point."""

    what: str
    size: str
    messages: int
    start_s: Spread | None
    rate: Spread | None
    cpu_us: Spread | None
    runs: list[Measured] = field(default_factory=list)
    failure: str = ""
    disturbed: str = ""
    noises: list[Noise] = field(default_factory=list)


def points(scale: float) -> list[Point]:
    """Return everything that is measured."""

    def many(messages: int) -> int:
        return max(100, round(messages * scale))

    return [
        *(Point(what="processes", size=str(size), messages=many(20_000), processes=size) for size in (1, 2, 4)),
        *(
            Point(
                what="subscribers", size=f"{size:,}", messages=max(size, many(10_000)), queues=size, is_filled_late=True
            )
            for size in (1, 10, 100, 1_000)
        ),
        *(
            Point(what="body", size=size, messages=many(messages), body_bytes=body_bytes)
            for size, body_bytes, messages in (
                ("100 B", 0, 20_000),
                ("10 kB", 10_000, 5_000),
                ("1 MB", 1_000_000, 200),
            )
        ),
        *(
            Point(what="prefetch", size=f"{size:,}", messages=many(messages), prefetch=size)
            for size, messages in ((1, 3_000), (10, 10_000), (100, 20_000), (1_000, 20_000))
        ),
        *(
            Point(
                what="wait queues",
                size=str(size),
                messages=many(2_000),
                queues=size,
                is_filled_late=True,
                is_retrying=True,
            )
            for size in (1, 10, 100)
        ),
    ]


def measure(point: Point, url: str) -> Measured:
    """Let `runner up` handle what waits in the queues, and check that nothing is missing or left."""
    who, name = f"{point.what}: {point.size}", f"bench-scale-{next(_numbers)}"
    queues = [f"{name}-{number}" for number in range(point.queues)]
    rabbit.make(url, queues, "classic")
    if not point.is_filled_late:
        rabbit.fill(url, queues, point.messages, size=point.body_bytes)
    job = Job(work="consume", count=point.messages, url=url, processes=point.processes)
    kind = "SharedLedger" if point.processes > 1 else "Ledger"
    with bench_folder() as folder:
        commands = [write(folder, pipeline(point, name, queues, url))] * point.processes
        started = time.time()
        with ProcessGroup(who, commands, folder, {**job.variables(), "BENCH_LEDGER_KIND": kind}) as group:
            if point.is_filled_late:
                _wait_until_ready(folder)
                rabbit.publish(url, queues, point.messages)
            group.wait(point.messages, TIMEOUT_S)
            account = group.end()
        ready = max(_when_ready(folder / f"stdout-{number}") for number in range(point.processes))
    account.check(who, point.messages)
    rabbit.check(url, who, queues, 0)
    rabbit.delete(url, queues)
    seconds = account.ended - account.began
    return Measured(ready - started, point.messages / seconds, account.cpu_s / point.messages * 1e6)


def pipeline(point: Point, name: str, queues: Sequence[str], url: str) -> str:
    """Return a pipeline with a subscriber for each queue; its own name makes its wait queues new."""
    text = _HEAD.format(
        root=ROOT,
        name=name,
        url=url,
        handler="consume_second_time" if point.is_retrying else "consume",
        prefetch=point.prefetch,
    )
    text += "queues:\n" + "".join(f"  {queue}:\n" for queue in queues) + "subscribers:\n"
    for number, queue in enumerate(queues):
        retry = f"{{attempts: 2, delay: {FIRST_DELAY_MS + number}ms}}" if point.is_retrying else "none"
        text += f"  work_{number}: {{from: {queue}, retry: {retry}}}\n"
    return text


def _when_ready(log: Path) -> float:
    """Return the time at which a process said that its pipeline runs."""
    for line in log.read_text().splitlines():
        if _STARTED in line:
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    raise BenchmarkError(f"{log.name}: the pipeline never started")


def _wait_until_ready(folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _STARTED not in (folder / "stdout-0").read_text():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"no pipeline.started after {TIMEOUT_S:.0f} s\n{(folder / 'stderr-0').read_text()}")
        time.sleep(0.05)


def _row(point: Point, its: Measurements[Measured]) -> Row:
    start_s, rate, cpu_us = (spread_of(its.results, name) for name in ("start_s", "rate", "cpu_us"))
    row = Row(point.what, point.size, point.messages, start_s, rate, cpu_us, its.results, its.failure)
    return replace(row, disturbed=disturbed(its.noises), noises=its.noises)


def show(rows: Sequence[Row], runs: int) -> None:
    """Print a table for each thing that grows."""
    heads = ("messages", "median /s", "min", "max", "CPU µs each", "until it runs, s", "disturbed")
    for what in dict.fromkeys(row.what for row in rows):
        cells = [(row.size, *_cells(row)) for row in rows if row.what == what]
        print(table(f"More {what}, {runs} runs", (what, *heads), cells), flush=True)


def _cells(row: Row) -> Sequence[str]:
    if row.failure or row.rate is None or row.cpu_us is None or row.start_s is None:
        return (f"{row.messages:,}", "FAILED", *["-"] * 5)
    rates = (f"{value:,.0f}" for value in (row.rate.median, row.rate.min, row.rate.max))
    return (f"{row.messages:,}", *rates, f"{row.cpu_us.median:.1f}", f"{row.start_s.median:.2f}", row.disturbed)


def measure_all(options: argparse.Namespace, runs: int) -> list[Row]:
    """Measure every point, and print the tables."""
    if not Node.is_installed():
        sys.exit("RabbitMQ is not installed here")
    chosen = [point for point in points(QUICK if options.quick else 1.0) if options.only in point.what]
    rows: list[Row] = []
    with broker() as node:
        for what in dict.fromkeys(point.what for point in chosen):
            sizes = {f"{what}: {point.size}": point for point in chosen if point.what == what}
            measures: dict[str, Callable[[], Measured]] = {
                name: partial(measure, point, node.url) for name, point in sizes.items()
            }
            found = [_row(sizes[name], its) for name, its in measure_in_turns(runs, measures).items()]
            report(f"{what}: " + ", ".join(f"{row.size} {row.rate.median:,.0f}/s" for row in found if row.rate))
            rows += found
    show(rows, runs)
    return rows


def main() -> None:
    """Run the benchmark."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="WORD", help="only what contains WORD, as in --only prefetch")

    run_benchmark("scaling", __doc__, measure_all, runs=RUNS, quick_runs=1, add_options=add_options)


if __name__ == "__main__":
    main()
