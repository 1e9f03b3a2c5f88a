"""How long the command takes to start, beside the imports it cannot do without.

python -m benchmarks.startup [--quick] [--runs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    RUNNER,
    BenchmarkError,
    Measurements,
    Spread,
    bench_folder,
    disturbed,
    environment,
    measure_in_turns,
    run,
    run_benchmark,
    table,
)

RUNS = 11
TIMEOUT_S = 30.0

PIPELINE = """\
version: 1
queues:
  work: {type: classic}
producers:
  produce: {handler: "bench_handlers:one", to: work}
subscribers:
  consume:
    from: work
    handler: bench_handlers:first
    concurrency: 4
"""

HANDLERS = """\
import os
import time


def one():
    return {"number": 0}


def first(payload):
    with open(os.environ["BENCH_BEGAN"], "w") as file:
        file.write(str(time.monotonic()))
"""

HELP, VALIDATE, UP = "runner --help", "runner validate", "runner up, to the first message"
CLICK, INPUT = "import click", "import pydantic, yaml"
MODEL = "the same, with one model"

_ONE_MODEL = "import pydantic, yaml\nclass Order(pydantic.BaseModel):\n    number: int"

_THIRD_PARTY_OF_HELP = """
import sys
before = set(sys.modules)
from runner.cli import main
sys.argv[1:] = ["--help"]
sys.stdout.write = lambda text: len(text)
try:
    main()
except SystemExit:
    pass
files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(*sorted(name for name in files if "." not in name and "site-packages" in files[name]), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a command, in seconds."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One command, in seconds. CPU seconds are the steadier number on a busy machine."""

    command: str
    seconds: Spread
    cpu_s: Spread
    disturbed: str


@dataclass(frozen=True, slots=True)
class Goal:
    """One command compared with another; `below` is what we want the ratio to be, if anything."""

    command: str
    base: str
    ratio: float
    below: float | None = None


def measures(folder: Path) -> dict[str, Callable[[], Measured]]:
    """Return what is measured, by name."""
    python = sys.executable
    return {
        "pass": partial(_measure, [python, "-c", "pass"], folder),
        CLICK: partial(_measure, [python, "-c", CLICK], folder),
        HELP: partial(_measure, [*RUNNER, "--help"], folder),
        INPUT: partial(_measure, [python, "-c", INPUT], folder),
        MODEL: partial(_measure, [python, "-c", _ONE_MODEL], folder),
        VALIDATE: partial(_measure, [*RUNNER, "validate", "bench.yaml"], folder),
        UP: partial(_measure_to_first_message, folder),
    }


def _measure(command: Sequence[str], folder: Path) -> Measured:
    started = time.monotonic()
    cpu_s = run(command, cwd=folder, env=_environment(folder), timeout_s=TIMEOUT_S)
    return Measured(time.monotonic() - started, cpu_s)


def _measure_to_first_message(folder: Path) -> Measured:
    """Run `runner up`; its handler notes the monotonic time, which is the same in every process."""
    started = time.monotonic()
    cpu_s = _measure([*RUNNER, "up", "bench.yaml", "--until-idle"], folder).cpu_s
    began = folder / "began"
    handled = float(began.read_text())
    began.unlink()
    return Measured(handled - started, cpu_s)


def _environment(folder: Path) -> dict[str, str]:
    return environment(BENCH_BEGAN=str(folder / "began"))


def third_party_of_help() -> list[str]:
    """Return the top-level modules that do not belong to Python or to us and that `runner --help` imports."""
    command = [sys.executable, "-P", "-c", _THIRD_PARTY_OF_HELP]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise BenchmarkError(done.stderr)
    return [name for name in done.stderr.split() if name != "runner"]


def show(rows: Sequence[Row], goals: Sequence[Goal], runs: int) -> None:
    """Print the tables."""
    heads = ("command", "median ms", "min", "max", "CPU ms", "disturbed")
    cells = [
        (row.command, *(f"{value * 1000:.0f}" for value in (*astuple(row.seconds), row.cpu_s.median)), row.disturbed)
        for row in rows
    ]
    print(table(f"Start-up, {runs} runs", heads, cells))
    ratios = [(f"{goal.command} / {goal.base}", f"{goal.ratio:.2f}", _verdict(goal)) for goal in goals]
    print(table("Ratios of medians", ("pair", "ratio", "goal"), ratios))


def measure_all(_: argparse.Namespace, runs: int) -> dict[str, object]:
    """Measure all commands, and print the tables."""
    with bench_folder() as folder:
        (folder / "bench.yaml").write_text(PIPELINE)
        (folder / "bench_handlers.py").write_text(HANDLERS)
        todo = measures(folder)
        for measure in todo.values():
            measure()  # fills the caches: bytecode and files
        rows = [_row(command, its) for command, its in measure_in_turns(runs, todo).items()]
    medians = {row.command: row.seconds.median for row in rows}
    goals = [
        Goal(HELP, CLICK, medians[HELP] / medians[CLICK]),
        Goal(VALIDATE, INPUT, medians[VALIDATE] / medians[INPUT], below=2.0),
        Goal(VALIDATE, MODEL, medians[VALIDATE] / medians[MODEL]),
        Goal(UP, INPUT, medians[UP] / medians[INPUT]),
    ]
    modules = third_party_of_help()
    show(rows, goals, runs)
    print(f"\nthird-party modules that `runner --help` imports: {', '.join(modules) or 'none'} (goal: click)")
    return {"commands": rows, "ratios": goals, "third_party_of_help": modules}


def _row(command: str, its: Measurements[Measured]) -> Row:
    if its.failure:
        raise BenchmarkError(its.failure)
    seconds, cpu_s = (Spread.of([getattr(ran, name) for ran in its.results]) for name in ("seconds", "cpu_s"))
    return Row(command, seconds, cpu_s, disturbed(its.noises))


def _verdict(goal: Goal) -> str:
    if goal.below is None:
        return "-"
    return f"< {goal.below:g}: {'met' if goal.ratio < goal.below else 'MISSED'}"


def main() -> None:
    """Run the benchmark."""
    run_benchmark("startup", __doc__, measure_all, runs=RUNS, quick_runs=7)


if __name__ == "__main__":
    main()
