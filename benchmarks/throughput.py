"""How many messages a second one process handles: in-process, and on RabbitMQ beside plain aio-pika.

python -m benchmarks.throughput [--quick] [--only WORD] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import rabbit
from benchmarks.entries.in_process import IN_PROCESS, InProcess
from benchmarks.entries.job import Entry, Job
from benchmarks.entries.plain_aio_pika import PLAIN_AIO_PIKA
from benchmarks.entries.runline import RUNLINE
from benchmarks.measuring import (
    BenchmarkError,
    Spread,
    end_in_order,
    environment,
    machine,
    machine_line,
    options,
    run,
    table,
    take_turns,
    write_json,
)
from tests.node import Node

ENTRIES: Sequence[Entry] = (PLAIN_AIO_PIKA, RUNLINE)
"""Who is measured on RabbitMQ; the first is what the others are compared with. A peer is one more line here."""

RUNS = 5
TIMEOUT_S = 180.0

_names = count()


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: messages a second, and CPU time of the process for each, in microseconds."""

    rate: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of work; with `is_quick` also done by `--quick`."""

    name: str
    job: Job
    is_quick: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What one entry did in one scenario."""

    scenario: str
    entry: str
    count: int
    rate: Spread
    cpu_us: Spread
    ratio: float
    cpu_ratio: float
    """Medians of the rounds' own ratios to the first entry: both of a pair ran within seconds of each other. More is
    better: twice the rate, half the CPU time."""
    runs: list[Measured] = field(default_factory=list)


def scenarios(scale: float) -> list[Scenario]:
    """Return the work on RabbitMQ, for each kind of queue."""
    found = []
    for kind in ("classic", "quorum"):
        many, some = (max(1000, round(size * scale)) for size in (10_000, 5_000))
        consume = Job(work="consume", kind=kind, count=many)
        found += [
            Scenario(f"{kind}: consume, 10 at once", replace(consume, concurrency=10)),
            Scenario(f"{kind}: consume, 100 at once", consume, is_quick=True),
            Scenario(f"{kind}: consume with log lines", replace(consume, count=some, logs=True), kind == "classic"),
            Scenario(f"{kind}: hop", Job(work="hop", kind=kind, count=some), is_quick=True),
            Scenario(f"{kind}: publish", Job(work="publish", kind=kind, count=many), kind == "classic"),
        ]
    return found


def measure(entry: Entry, job: Job, url: str) -> Measured:
    """Let an entry do a job on queues of its own, and check that every message was handled and none is left."""
    prefix = f"bench-{next(_names)}"
    source = f"{prefix}-source" if job.work != "publish" else ""
    target = f"{prefix}-target" if job.work != "consume" else ""
    job = replace(job, url=url, source=source, target=target)
    queues = [name for name in (source, target) if name]
    for name in queues:
        rabbit.make(url, name, job.kind)
    if source:
        rabbit.fill(url, source, job.count)
    measured = _work(entry, job)
    for name, expected in ((source, 0), (target, job.count)):
        if name and (left := rabbit.settled_count(url, name, expected)) != expected:
            raise BenchmarkError(f"{entry.name}, {job.work}: {name} has {left} messages instead of {expected}")
    rabbit.delete(url, *queues)
    return measured


def measure_in_process(entry: InProcess, size: int) -> Measured:
    """Let one process bring messages in and handle them."""
    with tempfile.TemporaryDirectory(prefix="runline-bench-") as name:
        folder = Path(name)
        return _run(entry.command(folder, size), folder, size)


def _work(entry: Entry, job: Job) -> Measured:
    with tempfile.TemporaryDirectory(prefix="runline-bench-") as name:
        folder = Path(name)
        return _run(entry.command(job, folder), folder, job.count, partial(entry.read_end, job))


def _run(
    command: Sequence[str],
    folder: Path,
    size: int,
    read_end: Callable[[Path], float | None] = lambda _: None,
) -> Measured:
    """Run a process that keeps a ledger, and return what that says."""
    verdict = folder / "verdict.json"
    run(
        command,
        cwd=folder,
        env=environment(BENCH_VERDICT=str(verdict), BENCH_COUNT=str(size)),
        timeout_s=TIMEOUT_S,
    )
    if not verdict.exists():
        raise BenchmarkError(f"{' '.join(command)}: not every message was handled\n{(folder / 'stderr').read_text()}")
    said = json.loads(verdict.read_text())
    if (said["count"], said["sum"]) != (size, size * (size - 1) // 2):
        raise BenchmarkError(f"{' '.join(command)}: {said['count']} messages instead of {size}, or not each once")
    seconds = (read_end(folder) or said["ended"]) - said["began"]
    return Measured(size / seconds, said["cpu_s"] / size * 1e6)


def compare(scenario: str, size: int, results: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Return a row for each entry, compared with the first."""
    first = next(iter(results.values()))
    return [
        Row(
            scenario,
            entry,
            size,
            Spread.of([item.rate for item in runs]),
            Spread.of([item.cpu_us for item in runs]),
            Spread.of([own.rate / other.rate for own, other in zip(runs, first, strict=True)]).median,
            Spread.of([other.cpu_us / own.cpu_us for own, other in zip(runs, first, strict=True)]).median,
            list(runs),
        )
        for entry, runs in results.items()
    ]


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    cells = [
        (
            row.scenario,
            row.entry,
            f"{row.count:,}",
            f"{row.rate.median:,.0f}",
            f"{row.rate.min:,.0f}",
            f"{row.rate.max:,.0f}",
            f"{row.cpu_us.median:.1f}",
            f"{row.ratio:.2f}",
            f"{row.cpu_ratio:.2f}",
        )
        for row in rows
    ]
    heads = ("scenario", "entry", "n", "median /s", "min", "max", "CPU µs each", "ratio", "CPU ratio")
    print(table(title, heads, cells), flush=True)


def run_rabbitmq(arguments: argparse.Namespace, runs: int) -> list[Row]:
    """Measure everything on a private node."""
    chosen = [
        scenario
        for scenario in scenarios(0.4 if arguments.quick else 1.0)
        if arguments.only in scenario.name and (scenario.is_quick or not arguments.quick)
    ]
    rows: list[Row] = []
    if not chosen:
        return rows
    if not Node.is_installed():
        print("\nRabbitMQ is not installed here: only the in-process broker was measured", file=sys.stderr)
        return rows
    with Node() as node:
        for scenario in chosen:
            measures = {entry.name: partial(measure, entry, scenario.job, node.url) for entry in ENTRIES}
            found = compare(scenario.name, scenario.job.count, take_turns(runs, measures))
            rows += found
            print(scenario.name, *(f"{row.rate.median:,.0f}/s" for row in found), file=sys.stderr, flush=True)
    show(f"RabbitMQ (private node, one scheduler), {runs} runs; ratio to {ENTRIES[0].name}", rows)
    return rows


def run_in_process(arguments: argparse.Namespace, runs: int) -> list[Row]:
    """Measure everything on the in-process broker."""
    size = 20_000 if arguments.quick else 100_000
    sizes = {entry.name: max(1000, round(size * entry.share)) for entry in IN_PROCESS}
    chosen = [entry for entry in IN_PROCESS if arguments.only in f"in-process {entry.name}"]
    if not chosen:
        return []
    measures = {entry.name: partial(measure_in_process, entry, sizes[entry.name]) for entry in chosen}
    rows = compare("in-process", 0, take_turns(runs, measures))
    rows = [replace(row, count=sizes[row.entry]) for row in rows]
    show(f"In one process, {runs} runs; ratio to {chosen[0].name}", rows)
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    end_in_order()
    parser = options(__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="only scenarios whose name contains WORD")
    arguments = parser.parse_args()
    before, runs = machine(), arguments.runs or RUNS
    rows = [*run_in_process(arguments, runs), *run_rabbitmq(arguments, runs)]
    print(f"\n{machine_line(before)}")
    write_json(arguments.json, "throughput", before, rows)


if __name__ == "__main__":
    main()
