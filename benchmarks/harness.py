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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

ROOT = Path(__file__).resolve().parent.parent
RUNNER = [sys.executable, "-P", "-m", "runner"]
"""What the installed command does, for this interpreter, whether or not the package is installed."""

_LIBRARIES = (
    *("aio-pika", "aiormq", "pamqp", "click", "pydantic", "pyyaml", "structlog", "uvloop"),
    *("faststream", "celery", "dramatiq", "taskiq", "taskiq-aio-pika", "pika", "pyee"),
)

LOOK_AT_LOAD_S = 0.2
TOO_BUSY = 0.2
"""From this share of the processors' time on, other work decides what is measured."""

_busy_shares: list[float] = []
"""What other work took of the processors, before each round."""

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
    add_options(parser)
    options = parser.parse_args()
    before = machine()
    results = measure(options, options.runs or (quick_runs if options.quick else runs))
    print(f"\n{machine_line(before)}")
    if warning := too_busy(_busy_shares):
        report(warning)
    if options.json is not None:
        write_json(options.json, kind, before, results)
    if isinstance(results, list) and any(getattr(row, "failure", "") for row in results):
        sys.exit(1)


@contextlib.contextmanager
def bench_folder() -> Iterator[Path]:
    """Yield a new folder, deleted at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="mqrunner-bench-") as name:
        yield Path(name)


def take_turns(runs: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure everything once in each round, and begin each round with another one; return the results by name."""
    results: dict[str, list[T]] = {name: [] for name in measures}
    for name in _turns(runs, list(measures)):
        results[name].append(measures[name]())
    return results


@dataclass(slots=True)
class Measurements(Generic[T]):
    """The results of one of several; `failure` says why there are no more."""

    results: list[T] = field(default_factory=list)
    failure: str = ""


def measure_in_turns(runs: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, Measurements[T]]:
    """Take turns as `take_turns` does; what fails is told at once and left out from then on, the others go on."""
    measured: dict[str, Measurements[T]] = {name: Measurements() for name in measures}
    for name in _turns(runs, list(measures)):
        if measured[name].failure:
            continue
        try:
            measured[name].results.append(measures[name]())
        except Exception as error:  # of whatever kind: the others' numbers are worth more
            measured[name].failure = str(error) or repr(error)
            report(f"FAILED: {name}: {error}")
    return measured


def _turns(runs: int, names: Sequence[str]) -> Iterator[str]:
    for turn in range(runs if names else 0):
        _busy_shares.extend(busy_share())
        start = turn % len(names)
        yield from (*names[start:], *names[:start])


def busy_share() -> list[float]:
    """Return which share of the processors' time is used now, while nothing is measured; empty if that is unknown."""
    before = _processor_times()
    time.sleep(LOOK_AT_LOAD_S)
    after = _processor_times()
    if before is None or after is None or before == after:
        return []
    idle, total = (late - early for early, late in zip(before, after, strict=True))
    return [1 - idle / total]


def _processor_times() -> tuple[int, int] | None:
    """Return the idle and the whole time of all processors, in ticks; None where the system does not say."""
    try:
        times = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    except OSError:
        return None
    return times[3] + times[4], sum(times)


def too_busy(shares: Sequence[float]) -> str:
    """Return a warning if other work ran between the measurements, and so probably during them; "" otherwise."""
    busy = [share for share in shares if share > TOO_BUSY]
    if len(busy) * 4 < len(shares) or not busy:
        return ""
    return (
        f"TOO BUSY: other work took {statistics.median(busy):.0%} of the processors before {len(busy)} of"
        f" {len(shares)} rounds. Do not believe these numbers; CPU ratios suffer least."
    )


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
        "machine": {**before, "busy": [round(share, 2) for share in _busy_shares], "too_busy": too_busy(_busy_shares)},
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
