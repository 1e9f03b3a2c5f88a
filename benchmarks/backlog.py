"""How much memory a process takes while more and more messages wait for it: it should not depend on how many.

python -m benchmarks.backlog [--quick] [--messages N] [--only WORD] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import rabbit
from benchmarks.entries.job import Job
from benchmarks.entries.mqrunner import MQRUNNER, write
from benchmarks.harness import ROOT, BenchmarkError, bench_folder, environment, report, run_benchmark, table
from benchmarks.process_group import read_accounts
from tests.node import Node

FEW = 1_000
BACKLOG = 200_000
PRODUCED = 1_000_000
PAUSE_S = 0.001
SAMPLE_S = 0.05
TIMEOUT_S = 1800.0

_SLOW = """\
version: 1
name: bench
python_path: ["{root}"]
logging: {{messages: false}}
queues:
  work: {{type: classic}}
producers:
  produce:
    handler: benchmarks.entries.handlers:produce
    to: work
subscribers:
  consume:
    from: work
    handler: benchmarks.entries.handlers:consume_slowly
    concurrency: 10
"""


@dataclass(frozen=True, slots=True)
class Row:
    """The resident memory of one process, in MiB: its peak, and medians of its samples."""

    broker: str
    count: int
    seconds: float
    peak: float
    middle: float
    late: float
    ratio: float = 1.0
    """Peak, compared with that of the first row of the same broker."""


def watch(broker: str, command: Sequence[str], folder: Path, count: int, **variables: str) -> Row:
    """Run a process that handles `count` messages, and look at its memory all the while."""
    env = environment(**{"BENCH_LEDGER": str(folder), "BENCH_COUNT": str(count), **variables})
    samples: list[float] = []
    peak = 0.0
    started = time.monotonic()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            while process.poll() is None:
                if (memory := _memory(process.pid)) is not None:
                    now, peak = memory
                    samples.append(now)
                if time.monotonic() - started > TIMEOUT_S:
                    raise BenchmarkError(f"{broker}, {count} messages: not done after {TIMEOUT_S:.0f} s")
                time.sleep(SAMPLE_S)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise BenchmarkError(f"{broker}: exit {process.returncode}\n{(folder / 'stderr').read_text()}")
    account = read_accounts(folder)
    account.check(broker, count)
    third = max(1, len(samples) // 3)
    return Row(
        broker,
        count,
        account.ended - account.began,
        peak,
        _median(samples[third : 2 * third]),
        _median(samples[-third:]),
    )


def _memory(pid: int) -> tuple[float, float] | None:
    """Return the resident memory of a process now and at its peak, in MiB; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return (int(sizes["VmRSS"]) / 1024, int(sizes["VmHWM"]) / 1024) if len(sizes) == 2 else None


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def on_rabbitmq(url: str, count: int) -> Row:
    """Fill a durable queue, then let `runner up` work it off."""
    name = f"bench-backlog-{count}"
    rabbit.make(url, [name], "classic")
    rabbit.fill(url, [name], count)
    job = Job(work="consume", count=count, url=url, source=name)
    with bench_folder() as folder:
        command = [*MQRUNNER.command(job, folder), "--until-idle"]
        row = watch("RabbitMQ", command, folder, count, **job.variables())
    rabbit.check(url, "RabbitMQ", [name], 0)
    rabbit.delete(url, [name])
    return row


def in_process(count: int) -> Row:
    """Let a producer bring in messages much faster than they are handled."""
    with bench_folder() as folder:
        command = write(folder, _SLOW.format(root=ROOT), "--until-idle")
        return watch("in-process", command, folder, count, BENCH_PAUSE_S=str(PAUSE_S))


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the ratio of each peak to the first one's."""
    return [
        Row(row.broker, row.count, row.seconds, row.peak, row.middle, row.late, row.peak / rows[0].peak) for row in rows
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    heads = ("broker", "messages", "seconds", "peak MiB", "middle third", "last third", "peak ratio")
    cells = [
        (
            row.broker,
            f"{row.count:,}",
            f"{row.seconds:.1f}",
            f"{row.peak:.1f}",
            f"{row.middle:.1f}",
            f"{row.late:.1f}",
            f"{row.ratio:.2f}",
        )
        for row in rows
    ]
    print(table("Resident memory of `runner up`", heads, cells), flush=True)


def measure_all(options: argparse.Namespace, _: int) -> list[Row]:
    """Measure on both brokers, and print the table."""
    many = 20_000 if options.quick else options.messages
    produced = 120_000 if options.quick else options.produced
    rows: list[Row] = []
    if options.only != "in-process" and Node.is_installed():
        with Node() as node:
            rows += compared([on_rabbitmq(node.url, count) for count in (FEW, many)])
    elif options.only != "in-process":
        report("RabbitMQ is not installed here: only the in-process broker is measured")
    if options.only != "rabbitmq":
        rows += compared([in_process(count) for count in (FEW, produced // 5, produced)])
    show(rows)
    return rows


def main() -> None:
    """Run the benchmark."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--messages", type=int, default=BACKLOG, help="the large backlog on RabbitMQ")
        parser.add_argument("--produced", type=int, default=PRODUCED, help="the large number on the in-process broker")
        parser.add_argument("--only", default="", choices=("", "rabbitmq", "in-process"))

    run_benchmark("backlog", __doc__, measure_all, runs=1, quick_runs=1, add_options=add_options)


if __name__ == "__main__":
    main()
