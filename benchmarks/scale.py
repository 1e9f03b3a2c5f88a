"""How long a large specification takes to be checked: subscribers in 50 included files, without imports.

    python -m benchmarks.scale [--json FILE]

Prints the median of five runs for each size and the cost per subscriber, which should not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from runner.app import check

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


def measure(subscribers: int) -> float:
    """Return the median seconds of a check; raises if there were problems."""
    with tempfile.TemporaryDirectory() as name:
        root = write(Path(name), subscribers)
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            problems, _ = check([root], {})
            times.append(time.perf_counter() - started)
            if problems:
                raise SystemExit(f"unexpected problems: {problems[:3]}")
        return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures = {size: measure(size) for size in SIZES}
    print("| subscribers | median s | µs each |\n|---:|---:|---:|")
    for size, seconds in figures.items():
        print(f"| {size} | {seconds:.3f} | {seconds / size * 1e6:.0f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
