"""What all benchmarks share: processes, medians of runs that take turns, tables and JSON."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.noise import Noise, is_too_busy, warning, watched
from tests.node import Node

ROOT = Path(__file__).resolve().parent.parent
RUNNER = [sys.executable, "-P", "-m", "runner"]
"""What the installed command does, for this interpreter, whether or not the package is installed."""

_LIBRARIES = (
    *("aio-pika", "aiormq", "pamqp", "click", "pydantic", "pyyaml", "structlog", "uvloop"),
    *(
        "faststream",
        "celery",
        "dramatiq",
        "taskiq",
        "taskiq-aio-pika",
        "pika",
        "pyee",
        "huey",
        "litequeue",
        "persist-queue",
    ),
)

_noises: list[Noise] = []
"""What disturbed each measurement of this invocation."""
_rabbitmq: list[str] = []
"""The version of RabbitMQ that this invocation measures, when its node runs."""

T = TypeVar("T")


class BenchmarkError(RuntimeError):
    """A process under measurement did not do its work: there is no number for it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of some runs."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def spread_of(runs: Sequence[object], name: str) -> Spread | None:
    """Return the spread of an attribute over the runs; None if there are none."""
    return Spread.of([getattr(run, name) for run in runs]) if runs else None


def environment(**more: str) -> dict[str, str]:
    """Return a clean environment for a process under measurement: nothing of the caller's but PATH and HOME."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {"LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **kept, **more}


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> float:
    """Run a process to its end, its output in `stdout` and `stderr` of `cwd`, and return its CPU seconds.

    Raises BenchmarkError where it fails.

    It waits without a timeout: with one, the standard library would look only every 50 ms. A timer kills instead.
    """
    with (cwd / "stdout").open("wb") as out, (cwd / "stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        watch = threading.Timer(timeout_s, process.kill)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watch.cancel()
            process.kill()  # harmless where it has ended
    if process.returncode != 0:
        raise BenchmarkError(f"{_line(command)}: exit {process.returncode} (at most {timeout_s:.0f} s)\n{_ends(cwd)}")
    return usage.ru_utime + usage.ru_stime


def run_benchmark(
    kind: str,
    description: str | None,
    measure: Callable[[argparse.Namespace, int], Any],
    *,
    runs: int,
    quick_runs: int,
    add_options: Callable[[argparse.ArgumentParser], object] = lambda _: None,
) -> None:
    """Run a benchmark as a command: parse its options, measure, print the machine, and write JSON if asked to.

    `measure` gets the options and the number of runs, prints its tables, and returns the results. The exit code is 1 if
    a result has a `failure`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # so that child processes end, too
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: a first impression, not a measurement")
    parser.add_argument("--runs", type=int, help="how often everything is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE as well")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help=f"the same to FOLDER/{kind}-LINE.json, with RabbitMQ's line"
    )
    add_options(parser)
    options = parser.parse_args()
    before = machine()
    results = measure(options, options.runs or (quick_runs if options.quick else runs))
    print(f"\n{machine_line(before)}")
    if busy := warning(_noises):
        report(busy)
    for file in (options.json, options.results and options.results / file_name(kind)):
        if file is not None:
            write_json(file, kind, before, results)
    if isinstance(results, list) and any(getattr(row, "failure", "") for row in results):
        sys.exit(1)


@contextlib.contextmanager
def broker() -> Iterator[Node]:
    """Yield a private node of RabbitMQ, whose version the results then have."""
    with Node() as node:
        _rabbitmq[:] = [node.ctl("version").strip()]
        yield node


def file_name(kind: str) -> str:
    """Return the name of a file of results, with the line of RabbitMQ if one was measured: `latency-4.3.json`."""
    return f"{kind}-{'.'.join(_rabbitmq[0].split('.')[:2])}.json" if _rabbitmq else f"{kind}.json"


@contextlib.contextmanager
def bench_folder() -> Iterator[Path]:
    """Yield a new folder, deleted at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="mqrunner-bench-") as name:
        yield Path(name)


@dataclass(slots=True)
class Measurements(Generic[T]):
    """The results of one of several, and what disturbed each; `failure` says why there are no more."""

    results: list[T] = field(default_factory=list)
    failure: str = ""
    noises: list[Noise] = field(default_factory=list)


def measure_in_turns(runs: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, Measurements[T]]:
    """Measure everything once in each round, and begin each round with another one.

    What fails is reported at once and left out from then on; the others go on.
    """
    measured: dict[str, Measurements[T]] = {name: Measurements() for name in measures}
    for name in _turns(runs, list(measures)):
        its = measured[name]
        if its.failure:
            continue
        try:
            result, noise = watched(measures[name])
        except Exception as error:  # of whatever kind: the others' numbers are worth more
            its.failure = str(error) or repr(error)
            report(f"FAILED: {name}: {error}")
            continue
        its.results.append(result)
        its.noises.append(noise)
        _noises.append(noise)
    return measured


def _turns(runs: int, names: Sequence[str]) -> Iterator[str]:
    for turn in range(runs if names else 0):
        start = turn % len(names)
        yield from (*names[start:], *names[:start])


def disturbed(noises: Sequence[Noise]) -> str:
    """Return the cell of a table that says how many runs other work disturbed; "" if none."""
    number = sum(noise.is_too_much for noise in noises)
    if not number:
        return ""
    return f"{number} of {len(noises)}{', TOO BUSY' if is_too_busy(noises) else ''}"


def report(line: str) -> None:
    """Tell whoever waits how it goes, on stderr."""
    print(line, file=sys.stderr, flush=True)


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table that also reads well in a terminal; numbers stand to the right."""
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]

    def shown(line: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        return f"| {' | '.join([line[0].ljust(widths[0]), *numbers])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join(["", f"## {title}", "", shown(lines[0]), f"|{rule}|", *map(shown, lines[1:])])


def machine() -> dict[str, Any]:
    """Return what the numbers depend on, the load on the machine included."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "-"
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions,
    }


def machine_line(before: Mapping[str, Any]) -> str:
    """Return one line about the machine, and how busy it was before and is now."""
    versions = ", ".join(f"{name} {version}" for name, version in before["versions"].items())
    return (
        f"Python {before['python']}, {before['cores']} cores, load average {before['load'][0]} before"
        f" and {os.getloadavg()[0]:.2f} after (our own work included); {versions}"
    )


def write_json(path: Path, kind: str, before: Mapping[str, Any], results: object) -> None:
    """Write results to a file."""
    document = {
        "benchmark": kind,
        "machine": {
            **before,
            "rabbitmq": "".join(_rabbitmq),
            "too_busy": warning(_noises),
        },
        "results": results,
    }
    text = json.dumps(document, indent=2, default=_plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return asdict(value)  # type: ignore[call-overload]  # dataclasses only


def _line(command: Sequence[str | Path]) -> str:
    return " ".join(str(part) for part in command)


def _ends(folder: Path) -> str:
    """Return the end of what a process has said."""
    return "\n".join(
        f"--- {name}\n{(folder / name).read_text(errors='replace')[-2000:]}" for name in ("stdout", "stderr")
    )
