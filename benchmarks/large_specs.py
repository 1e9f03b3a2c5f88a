"""How long a large specification takes to be checked: subscribers in 50 included files, without imports.

    python -m benchmarks.large_specs [--json FILE]

Prints the median of five runs for each size and the cost per subscriber, which should not grow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import BenchmarkError, bench_folder, run_benchmark, table
from runner.system import check

SIZES = (125, 250, 500, 1000, 2000)
FILES = 50
RUNS = 5


def write(folder: Path, subscribers: int) -> Path:
    """Write a pipeline of so many subscribers, each with a queue of its own, in 50 included files."""
    parts = []
    for part in range(FILES):
        numbers = range(part, subscribers, FILES)
        queues = "".join(f"  queue_{number}: {{max_length: 1000}}\n" for number in numbers)
        items = "".join(
            f"  subscriber_{number}: {{from: queue_{number}, handler: 'shop:handle', retry: 5, timeout: 10s}}\n"
            for number in numbers
        )
        (folder / f"part_{part}.yaml").write_text(f"queues:\n{queues}subscribers:\n{items}")
        parts.append(f"  - part_{part}.yaml\n")
    (folder / "shop.py").write_text("def handle(order): ...\n")
    root = folder / "pipeline.yaml"
    root.write_text("version: 1\npython_path: [.]\ninclude:\n" + "".join(parts))
    return root


@dataclass(frozen=True, slots=True)
class Row:
    """Return the median time of checking a file with this number of subscribers, in seconds."""

    subscribers: int
    seconds: float


def measure(subscribers: int, runs: int) -> Row:
    """Return the median seconds of a check. Raises BenchmarkError if the specification has problems."""
    times = []
    with bench_folder() as folder:
        root = write(folder, subscribers)
        for _ in range(runs):
            started = time.perf_counter()
            problems, _ = check([root], {})
            times.append(time.perf_counter() - started)
            if problems:
                raise BenchmarkError(f"unexpected problems: {problems[:3]}")
    return Row(subscribers, statistics.median(times))


def measure_all(options: argparse.Namespace, runs: int) -> list[Row]:
    """Measure every size, and print the table."""
    rows = [measure(size, runs) for size in SIZES[: 2 if options.quick else None]]
    cells = [
        (f"{row.subscribers:,}", f"{row.seconds:.3f}", f"{row.seconds / row.subscribers * 1e6:.0f}") for row in rows
    ]
    print(table(f"Check of a specification, {runs} runs", ("subscribers", "median s", "µs each"), cells), flush=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    run_benchmark("large_specs", __doc__, measure_all, runs=RUNS, quick_runs=2)


if __name__ == "__main__":
    main()
