"""How many messages a second one or two processes handle: in-process, and on RabbitMQ, beside other libraries.

python -m benchmarks.throughput [--quick] [--only WORD] [--entry WORD] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from benchmarks import rabbit
from benchmarks.entries.amqplib import AMQPLIB
from benchmarks.entries.celery_app import CELERY, CELERY_PREFORK, CELERY_THREADS
from benchmarks.entries.dramatiq_app import DRAMATIQ, DRAMATIQ_THREADS
from benchmarks.entries.faststream_app import FASTSTREAM, FASTSTREAM_UVLOOP
from benchmarks.entries.in_process import IN_A_FILE, IN_PROCESS, InProcess
from benchmarks.entries.job import THREADS, Entry, Job, Work
from benchmarks.entries.librabbitmq import LIBRABBITMQ
from benchmarks.entries.mqrunner import MQRUNNER, MQRUNNER_METRICS, MQRUNNER_UVLOOP, MQRUNNER_WORKERS, has_option
from benchmarks.entries.plain_aio_pika import PLAIN_AIO_PIKA, PLAIN_AIO_PIKA_UVLOOP
from benchmarks.entries.plain_pika import PLAIN_PIKA
from benchmarks.entries.raw_socket import RAW_SOCKET
from benchmarks.entries.taskiq_app import TASKIQ
from benchmarks.harness import (
    BenchmarkError,
    Measurements,
    Spread,
    bench_folder,
    broker,
    disturbed,
    environment,
    measure_in_turns,
    report,
    run,
    run_benchmark,
    spread_of,
    table,
)
from benchmarks.noise import Noise
from benchmarks.process_group import QUORUM_SETTLE_S, SETTLE_S, Account, ProcessGroup
from tests.node import Node

OURS: Sequence[Entry] = (MQRUNNER, MQRUNNER_UVLOOP)
LOOPS: Sequence[Entry] = (PLAIN_AIO_PIKA_UVLOOP, FASTSTREAM_UVLOOP)
PEERS: Sequence[Entry] = (
    *(FASTSTREAM, TASKIQ, CELERY, CELERY_PREFORK, DRAMATIQ, DRAMATIQ_THREADS, CELERY_THREADS),
    *(PLAIN_PIKA, AMQPLIB, LIBRABBITMQ),
)
EXTRA: Sequence[Entry] = (*LOOPS, MQRUNNER_METRICS)
"""Who is measured in some scenarios only."""

ENTRIES: Sequence[Entry] = (PLAIN_AIO_PIKA, *PEERS, *LOOPS, *OURS, MQRUNNER_METRICS, RAW_SOCKET)
"""Who is measured on RabbitMQ; the first is what the others are compared with. A peer is one more line here."""

IN_THREADS = f"consume, plain functions in {THREADS} threads"

RUNS = 5
TIMEOUT_S = 120.0
QUICK = 0.2

_names = count()
_LEDGERS: Mapping[Work, str] = {"threads": "ThreadsLedger"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: messages a second, and CPU time of the process for each, in microseconds."""

    rate: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of work, and who does it."""

    name: str
    job: Job
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Row:
    """What one entry did in one scenario; with a `failure`, up to where it failed."""

    scenario: str
    entry: str
    count: int
    rate: Spread | None
    cpu_us: Spread | None
    ratio: float | None
    cpu_ratio: float | None
    """Medians of the rounds' own ratios to the first entry: both of a pair ran within seconds of each other. More is
    better: twice the rate, half the CPU time."""
    runs: list[Measured] = field(default_factory=list)
    failure: str = ""
    missing: str = ""
    """What it needs and this machine does not have: then there is no figure."""
    disturbed: str = ""
    noises: list[Noise] = field(default_factory=list)


def scenarios(scale: float) -> list[Scenario]:
    """Return the work on RabbitMQ."""
    many, some, fewer = (max(500, round(size * scale)) for size in (4_000, 3_000, 2_000))
    found = []
    for name, job, extra in (
        ("consume", Job(work="consume", count=many), (*LOOPS, MQRUNNER_METRICS)),
        ("consume to a model", Job(work="model", count=many), ()),
        ("consume, a log line for each", Job(work="log", count=many), ()),
        (IN_THREADS, Job(work="threads", count=some), ()),
        ("hop", Job(work="hop", count=fewer), (MQRUNNER_METRICS,)),
        ("publish", Job(work="publish", count=some), ()),
        ("quorum: consume", Job(work="consume", kind="quorum", count=many), ()),
        ("quorum: hop", Job(work="hop", kind="quorum", count=fewer), ()),
        ("quorum: publish", Job(work="publish", kind="quorum", count=some), ()),
    ):
        able = [entry for entry in ENTRIES if job.work in entry.works and job.kind in entry.kinds]
        found.append(Scenario(name, job, [entry for entry in able if entry not in EXTRA or entry in extra]))
    found.append(two_processes(3 * many))
    return found


def two_processes(size: int) -> Scenario:
    """Return the scenario of two processes at one queue."""
    both = [PLAIN_AIO_PIKA, FASTSTREAM, MQRUNNER]
    if has_option("--workers"):
        both.append(MQRUNNER_WORKERS)
    return Scenario("consume, two processes", Job(work="consume", count=size, processes=2), both)


def measure(entry: Entry, job: Job, url: str) -> Measured:
    """Let an entry do a job on queues of its own, and check that every message was handled and none is left."""
    prefix = f"bench-{next(_names)}"
    source = f"{prefix}-source" if job.work != "publish" else ""
    target = f"{prefix}-target" if job.work in ("hop", "publish") else ""
    job = replace(job, url=url, source=source, target=target)
    queues = [name for name in (source, target) if name]
    prepare(entry, job, queues)
    measured = _work(entry, job)
    for name, expected in ((source, 0), (target, job.count)):
        if name:
            rabbit.check(url, f"{entry.name}, {job.work}", [name], expected)
    rabbit.delete(url, queues)
    return measured


def prepare(entry: Entry, job: Job, queues: Sequence[str]) -> None:
    """Make the queues and put the messages in; a peer with an envelope of its own does that itself."""
    if entry.fill is None:
        rabbit.make(job.url, queues, job.kind)
        if job.source:
            rabbit.fill(job.url, [job.source], job.count, size=job.body_bytes)
        return
    with bench_folder() as folder:
        variables = {**job.variables(), **entry.variables, "BENCH_LEDGER": str(folder)}
        run(entry.fill, cwd=folder, env=environment(**variables), timeout_s=TIMEOUT_S)
    rabbit.wait_until_ready(job.url, [job.source], job.count)


def measure_in_process(entry: InProcess, size: int) -> Measured:
    """Let one process bring messages in and handle them."""
    with bench_folder() as folder:
        if entry.part == "handle":
            _run_in_process(replace(entry, part="publish"), size, folder)
        return _run_in_process(entry, size, folder)


def _run_in_process(entry: InProcess, size: int, folder: Path) -> Measured:
    for ledger in folder.glob("ledger-*.json"):  # of what was published before
        ledger.unlink()
    with ProcessGroup(entry.name, [entry.command(folder)], folder, {"BENCH_COUNT": str(size)}) as group:
        group.wait(size, TIMEOUT_S)
        account = group.end(by_themselves=True)
    return _measured(entry.name, size, account, entry.read_end(folder))


def _work(entry: Entry, job: Job) -> Measured:
    with bench_folder() as folder:
        kind = "SharedLedger" if job.processes > 1 or entry.is_shared else _LEDGERS.get(job.work, "Ledger")
        variables = {**job.variables(), **entry.variables, "BENCH_LEDGER_KIND": kind}
        commands = [entry.command(job, folder)] * (1 if entry.starts_its_own else job.processes)
        with ProcessGroup(entry.name, commands, folder, variables) as group:
            group.wait(job.count, TIMEOUT_S)
            settle_s = QUORUM_SETTLE_S if job.kind == "quorum" else SETTLE_S
            account = group.end(by_themselves=job.work == "publish", settle_s=settle_s)
        if account.processes < job.processes:
            raise BenchmarkError(f"{entry.name}: only {account.processes} processes had messages")
        if job.work == "log" and (lines := (folder / "stdout-0").read_bytes().count(b"\n")) < job.count:
            raise BenchmarkError(f"{entry.name}: {lines} log lines for {job.count} messages")
        return _measured(entry.name, job.count, account, entry.read_end(job, folder))


def _measured(name: str, size: int, account: Account, ended: float | None = None) -> Measured:
    account.check(name, size)
    seconds = (ended or account.ended) - account.began
    return Measured(size / seconds, account.cpu_s / size * 1e6)


def compare(scenario: str, sizes: Mapping[str, int], measured: Mapping[str, Measurements[Measured]]) -> list[Row]:
    """Return a row for each entry, compared with the first."""
    first = next(iter(measured.values())).results
    rows = []
    for entry, its in measured.items():
        pairs = list(zip(its.results, first, strict=False))
        rows.append(
            Row(
                scenario,
                entry,
                sizes[entry],
                spread_of(its.results, "rate"),
                spread_of(its.results, "cpu_us"),
                Spread.of([own.rate / other.rate for own, other in pairs]).median if pairs else None,
                Spread.of([other.cpu_us / own.cpu_us for own, other in pairs]).median if pairs else None,
                its.results,
                its.failure,
                disturbed=disturbed(its.noises),
                noises=its.noises,
            )
        )
    return rows


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    heads = ("scenario", "entry", "n", "median /s", "min", "max", "CPU µs each", "ratio", "CPU ratio", "disturbed")
    print(table(title, heads, [_cells(row) for row in rows]), flush=True)


def _cells(row: Row) -> Sequence[str]:
    if row.missing:
        return (row.scenario, row.entry, "-", f"needs {row.missing}", *["-"] * 6)
    if row.failure or row.rate is None or row.cpu_us is None:
        return (row.scenario, row.entry, f"{row.count:,}", "FAILED", *["-"] * 6)
    rates = (f"{value:,.0f}" for value in (row.rate.median, row.rate.min, row.rate.max))
    ratios = ("-" if value is None else f"{value:.2f}" for value in (row.ratio, row.cpu_ratio))
    return (row.scenario, row.entry, f"{row.count:,}", *rates, f"{row.cpu_us.median:.1f}", *ratios, row.disturbed)


E = TypeVar("E", Entry, InProcess)


def installed(entries: Sequence[E]) -> list[E]:
    """Return the entries whose libraries are there, and say what the others need."""
    for entry in entries:
        if missing := entry.missing():
            _tell_missing(entry.name, ", ".join(missing))
    return [entry for entry in entries if not entry.missing()]


@functools.cache
def _tell_missing(name: str, missing: str) -> None:
    report(f"left out: {name} needs {missing}: `make bench` installs what this machine can have")


def not_installed(scenario: str, entries: Sequence[Entry | InProcess]) -> list[Row]:
    """Return a row without figures for each entry that needs what is not here."""
    missing = {entry.name: ", ".join(entry.missing()) for entry in entries if entry.missing()}
    return [Row(scenario, name, 0, None, None, None, None, missing=needs) for name, needs in missing.items()]


def run_rabbitmq(options: argparse.Namespace, runs: int) -> list[Row]:
    """Measure everything on a private node."""
    chosen = [scenario for scenario in scenarios(QUICK if options.quick else 1.0) if options.only in scenario.name]
    rows: list[Row] = []
    if not chosen:
        return rows
    if not Node.is_installed():
        report("RabbitMQ is not installed here: only the in-process broker was measured")
        return rows
    with broker() as node:
        for scenario in chosen:
            asked = [entry for entry in scenario.entries if options.entry in entry.name]
            entries = installed(asked)
            jobs = {
                entry.name: replace(scenario.job, count=max(200, round(scenario.job.count * entry.share)))
                for entry in entries
            }
            measures: dict[str, Callable[[], Measured]] = {
                entry.name: partial(measure, entry, jobs[entry.name], node.url) for entry in entries
            }
            rows += _compare_now(scenario.name, {name: job.count for name, job in jobs.items()}, runs, measures)
            rows += not_installed(scenario.name, asked)
    show(f"RabbitMQ (private node, one scheduler), {runs} runs; ratio to the first of each scenario", rows)
    return rows


def run_in_process(
    scenario: str, all_of_them: Sequence[InProcess], options: argparse.Namespace, runs: int
) -> list[Row]:
    """Measure what needs no RabbitMQ."""
    if options.only not in scenario:
        return []
    asked = [entry for entry in all_of_them if options.entry in entry.name]
    entries = installed(asked)
    size = 20_000 if options.quick else 40_000
    sizes = {entry.name: max(200, round(size * entry.share)) for entry in entries}
    measures: dict[str, Callable[[], Measured]] = {
        entry.name: partial(measure_in_process, entry, sizes[entry.name]) for entry in entries
    }
    rows = [*_compare_now(scenario, sizes, runs, measures), *not_installed(scenario, asked)]
    if rows:
        show(f"In one process, {runs} runs; ratio to the first", rows)
    return rows


def _compare_now(
    scenario: str, sizes: Mapping[str, int], runs: int, measures: Mapping[str, Callable[[], Measured]]
) -> list[Row]:
    """Measure one scenario, and report at once how it went."""
    if not measures:
        return []
    rows = compare(scenario, sizes, measure_in_turns(runs, measures))
    said = (f"{row.entry} {row.rate.median:,.0f}/s" if row.rate else f"{row.entry} FAILED" for row in rows)
    report(f"{scenario}: {', '.join(said)}")
    return rows


def measure_all(options: argparse.Namespace, runs: int) -> list[Row]:
    """Measure on both brokers, and print the tables."""
    return [
        *run_in_process("in-process", IN_PROCESS, options, runs),
        *run_in_process("in a file: publish", [replace(it, part="publish") for it in IN_A_FILE], options, runs),
        *run_in_process("in a file: handle", [replace(it, part="handle") for it in IN_A_FILE], options, runs),
        *run_rabbitmq(options, runs),
    ]


def main() -> None:
    """Run the benchmark."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="WORD", help="only scenarios whose name contains WORD")
        parser.add_argument("--entry", default="", metavar="WORD", help="only entries whose name contains WORD")

    run_benchmark("throughput", __doc__, measure_all, runs=RUNS, quick_runs=3, add_options=add_options)


if __name__ == "__main__":
    main()
