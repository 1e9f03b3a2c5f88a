"""How long a message is under way, from just before it is published to the start of its handler, at a steady rate.

python -m benchmarks.latency [--quick] [--entry WORD] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from benchmarks import rabbit
from benchmarks.entries.faststream_app import FASTSTREAM
from benchmarks.entries.job import Entry, Job
from benchmarks.entries.plain_aio_pika import PLAIN_AIO_PIKA
from benchmarks.harness import (
    ROOT,
    BenchmarkError,
    Measurements,
    Spread,
    bench_folder,
    broker,
    disturbed,
    environment,
    measure_in_turns,
    report,
    run_benchmark,
    spread_of,
    table,
)
from benchmarks.noise import Noise
from benchmarks.process_group import ProcessGroup
from benchmarks.throughput import OURS, installed
from tests.node import Node

ENTRIES: Sequence[Entry] = (PLAIN_AIO_PIKA, FASTSTREAM, *OURS)
RATES = (500, 2_000)
SECONDS = 2.0
WARM_UP_S = 0.5
RUNS = 5
START_S = 30.0

_names = count()


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, in milliseconds; `late` is the publisher's own worst delay, which is not in the others."""

    p50: float
    p99: float
    worst: float
    late: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one entry did at one rate: medians of its runs, and their spread."""

    rate: int
    entry: str
    count: int
    p50: Spread | None
    p99: Spread | None
    worst: Spread | None
    late: Spread | None
    runs: list[Measured] = field(default_factory=list)
    failure: str = ""
    disturbed: str = ""
    noises: list[Noise] = field(default_factory=list)


def measure(entry: Entry, rate: int, seconds: float, url: str) -> Measured:
    """Start a consumer, then the publisher, and see how long the messages were under way after the warm-up."""
    queue = f"bench-latency-{next(_names)}"
    job = Job(work="latency", count=round(rate * seconds), url=url, source=queue)
    rabbit.make(url, [queue], job.kind)
    variables = {**job.variables(), **entry.variables, "BENCH_LEDGER_KIND": "Stopwatch"}
    with (
        bench_folder() as folder,
        ProcessGroup(entry.name, [entry.command(job, folder)], folder, variables) as group,
    ):
        _wait_for_consumer(url, queue)
        late = _publish(job, rate, seconds)
        group.wait(job.count, START_S)
        account = group.end()
    account.check(entry.name, job.count)
    rabbit.check(url, entry.name, [queue], 0)
    rabbit.delete(url, [queue])
    latencies = sorted(account.latencies[round(rate * WARM_UP_S) :])
    p50, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
    return Measured(p50 * 1000, p99 * 1000, latencies[-1] * 1000, late * 1000)


def _wait_for_consumer(url: str, queue: str) -> None:
    deadline = time.monotonic() + START_S
    while not rabbit.has_consumer(url, queue):
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{queue}: no consumer after {START_S:.0f} s")
        time.sleep(0.05)
    time.sleep(0.2)


def _publish(job: Job, rate: int, seconds: float) -> float:
    """Run the publisher in a process of its own, and return its worst delay in seconds."""
    command = [sys.executable, "-m", "benchmarks.paced_publisher", job.url, job.source, str(rate), str(job.count)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=seconds + START_S
    )
    if done.returncode != 0:
        raise BenchmarkError(f"publisher: exit {done.returncode}\n{done.stderr}")
    return float(json.loads(done.stdout)["worst_s"])


def _row(rate: int, entry: str, size: int, its: Measurements[Measured]) -> Row:
    p50, p99, worst, late = (spread_of(its.results, name) for name in ("p50", "p99", "worst", "late"))
    return Row(rate, entry, size, p50, p99, worst, late, its.results, its.failure, disturbed(its.noises), its.noises)


def show(rows: Sequence[Row], runs: int) -> None:
    """Print the table."""
    heads = (
        "rate",
        "entry",
        "n",
        "p50 ms",
        "p99 ms",
        "worst ms",
        "p99, min to max",
        "publisher late, worst ms",
        "disturbed",
    )
    cells = []
    for row in rows:
        if row.failure or row.p50 is None or row.p99 is None or row.worst is None or row.late is None:
            cells.append((f"{row.rate:,}/s", row.entry, f"{row.count:,}", "FAILED", *["-"] * 5))
            continue
        medians = (f"{spread.median:.2f}" for spread in (row.p50, row.p99, row.worst))
        spread = f"{row.p99.min:.2f} to {row.p99.max:.2f}"
        cells.append(
            (f"{row.rate:,}/s", row.entry, f"{row.count:,}", *medians, spread, f"{row.late.max:.1f}", row.disturbed)
        )
    print(table(f"Latency, publish to handler, {runs} runs", heads, cells), flush=True)


def measure_all(options: argparse.Namespace, runs: int) -> list[Row]:
    """Measure every entry at every rate, and print the table."""
    if not Node.is_installed():
        sys.exit("RabbitMQ is not installed here")
    seconds = 1.0 if options.quick else SECONDS
    entries = [entry for entry in installed(ENTRIES) if options.entry in entry.name]
    rows: list[Row] = []
    with broker() as node:
        for rate in RATES:
            measures: dict[str, Callable[[], Measured]] = {
                entry.name: partial(measure, entry, rate, seconds, node.url) for entry in entries
            }
            found = [
                _row(rate, name, round(rate * seconds), its) for name, its in measure_in_turns(runs, measures).items()
            ]
            report(f"{rate}/s: " + ", ".join(f"{row.entry} p99 {row.p99.median:.2f} ms" for row in found if row.p99))
            rows += found
    show(rows, runs)
    return rows


def main() -> None:
    """Run the benchmark."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--entry", default="", metavar="WORD", help="only entries whose name contains WORD")

    run_benchmark("latency", __doc__, measure_all, runs=RUNS, quick_runs=2, add_options=add_options)


if __name__ == "__main__":
    main()
