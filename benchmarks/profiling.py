"""Where the time of one message goes, in a real `runner up`, on RabbitMQ and on the in-process broker.

    python -m benchmarks.profiling [--quick] [--only publish] [--top N] [--json FILE] [--pictures FOLDER]

Samples (`entries/sampled.py`) are shared out by the innermost frame that belongs to a part; so a part's time includes
what it calls in the standard library, but not the other parts that it calls.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import flame, rabbit
from benchmarks.entries.in_process import IN_A_FILE, IN_PROCESS, InProcess
from benchmarks.entries.job import Job, Work
from benchmarks.entries.mqrunner import MQRUNNER
from benchmarks.harness import ROOT, RUNNER, bench_folder, report, run_benchmark, table
from benchmarks.process_group import ProcessGroup
from tests.node import Node

TIMEOUT_S = 120.0
TOP = 25
RABBITMQ_WORKS: Sequence[Work] = ("consume", "log", "hop", "publish")

OTHER = "event loop, reading sockets"
PARTS: Mapping[str, Sequence[str]] = {
    "handler (counts)": ("benchmarks/",),
    "log lines": ("/structlog/", "/logging/", "runner/log"),
    "payload to object": ("/json/", "/pydantic", "runner/pipeline/codec.py", "runner/transports/amqp_limits.py"),
    "in-process broker": ("runner/transports/memory/",),
    "acknowledge": ("runner/transports/rabbitmq/ack_batcher.py",),
    "publish": [f"runner/transports/rabbitmq/{name}.py" for name in ("in_flight", "publish_channel", "publisher")],
    "transport: read and parse": ("runner/transports/",),
    "client library": ("/aiormq/", "/aio_pika/", "/pamqp/"),
    "delivery engine": ("runner/",),
}
"""What belongs to which part, by a piece of the file's path; the first that fits."""

Stack = Sequence[Sequence[str]]
Samples = Sequence[tuple[Stack, int]]


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of CPU time for each message, by part and by function."""

    broker: str
    messages: int
    samples: int
    cpu_us: float
    parts: Mapping[str, float]
    functions: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A profile, and the flame graph of its samples."""

    profile: Profile
    svg: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return "profile-" + re.sub(r"\W+", "-", self.profile.broker.lower()) + ".svg"


def part_of(stack: Stack) -> str:
    """Return the part that a sample belongs to: that of the innermost frame that has one, above the event loop."""
    for file, function in stack:
        if function.endswith("._run_once"):
            break
        for part, pieces in PARTS.items():
            if any(piece in _path(file) for piece in pieces):
                return part
    return OTHER


def share_out(broker: str, messages: int, cpu_us: float, samples: Samples) -> Profile:
    """Turn samples into microseconds for each message."""
    parts, functions = Counter[str](), Counter[str]()
    for stack, number in samples:
        parts[part_of(stack)] += number
        file, function = stack[0]
        functions[f"{_short(file)}: {function}"] += number
    total = max(1, parts.total())

    def in_us(counts: Counter[str]) -> dict[str, float]:
        return {name: number / total * cpu_us for name, number in counts.most_common()}

    return Profile(broker, messages, parts.total(), cpu_us, in_us(parts), in_us(functions))


def picture(found: Profile, samples: Samples) -> Picture:
    """Draw the samples of a profile."""
    stacks = [(frames_of(stack), number) for stack, number in samples]
    return Picture(found, flame.draw(_title(found), flame.tree(stacks), found.cpu_us, found.parts))


def frames_of(stack: Stack) -> list[flame.Frame]:
    """Return the frames of a stack above the event loop, the outermost first, each with its part."""
    loop = next((at for at, (_, function) in enumerate(stack) if function.endswith("._run_once")), len(stack))
    innermost_first = [
        (f"{_short(file).removesuffix('.py')}: {function}", part_of(stack[at:loop]))
        for at, (file, function) in enumerate(stack[:loop])
    ]
    return innermost_first[::-1] or [("event loop", OTHER)]


def _title(found: Profile) -> str:
    return f"{found.broker}: {found.cpu_us:.1f} µs a message ({found.messages:,} messages, {found.samples:,} samples)"


def _path(file: str) -> str:
    """Return a path in which ours begin at the checkout, so that its own name decides nothing."""
    return str(Path(file).relative_to(ROOT)) if file.startswith(f"{ROOT}/") and "site-packages" not in file else file


def _short(file: str) -> str:
    path = _path(file)
    return path if not path.startswith("/") else "/".join(Path(path).parts[-2:])


def profile(broker: str, command: Sequence[str], folder: Path, messages: int, variables: Mapping[str, str]) -> Picture:
    """Run a `runner up` with samples taken."""
    sampled = [sys.executable, "-m", "benchmarks.entries.sampled", "samples.json", *command[len(RUNNER) :]]
    with ProcessGroup(broker, [sampled], folder, variables) as group:
        group.wait(messages, TIMEOUT_S)
        account = group.end(by_themselves="--until-idle" in command)
    account.check(broker, messages)
    samples = json.loads((folder / "samples.json").read_text())
    return picture(share_out(broker, messages, account.cpu_s / messages * 1e6, samples), samples)


def on_rabbitmq(work: Work, messages: int, url: str) -> Picture:
    """Profile one kind of work on classic queues, with a prefetch of 100."""
    with bench_folder() as folder:
        source, target = f"profile-{work}-source", f"profile-{work}-target"
        job = Job(
            work=work,
            count=messages,
            url=url,
            source=source if work != "publish" else "",
            target=target if work in ("hop", "publish") else "",
        )
        rabbit.make(url, [source, target], job.kind)
        if job.source:
            rabbit.fill(url, [source], messages)
        name = "RabbitMQ" if work == "consume" else f"RabbitMQ, {work}"
        found = profile(name, MQRUNNER.command(job, folder), folder, messages, job.variables())
        rabbit.check(url, name, [source], 0)
        return found


def in_process(entry: InProcess, messages: int) -> Picture:
    """Profile an async producer, and a handler on the loop or in threads."""
    with bench_folder() as folder:
        variables = {"BENCH_COUNT": str(messages)}
        name = entry.name.replace("mqrunner", "in-process")
        return profile(name, entry.command(folder), folder, messages, variables)


def show(found: Profile, top: int) -> None:
    """Print both tables."""
    parts = [(part, f"{us:.1f}", f"{us / found.cpu_us:.0%}") for part, us in found.parts.items()]
    print(table(_title(found), ("part", "µs each", "share"), parts))
    functions = [(name, f"{us:.2f}", f"{us / found.cpu_us:.1%}") for name, us in list(found.functions.items())[:top]]
    print(table(f"{found.broker}: functions, by the time in themselves", ("function", "µs each", "share"), functions))


def measure_all(options: argparse.Namespace, _: int) -> list[Profile]:
    """Profile everything that is asked for, and print the tables."""
    messages = 10_000 if options.quick else 100_000
    works: list[Work] = [work for work in RABBITMQ_WORKS if options.only in f"rabbitmq {work}"]
    found: list[Picture] = []
    if works and Node.is_installed():
        with Node() as node:
            found += [on_rabbitmq(work, messages, node.url) for work in works]
    elif works:
        report("RabbitMQ is not installed here: only the in-process broker is profiled")
    found += [
        in_process(each, messages)
        for each in (*IN_PROCESS, *IN_A_FILE)
        if not each.peer and options.only in f"in-process {each.name}"
    ]
    for each in found:
        show(each.profile, options.top)
        if options.pictures is not None:
            (options.pictures / each.name).write_text(each.svg, "utf-8")
    return [each.profile for each in found]


def main() -> None:
    """Run the benchmark."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="WORD", help="only work whose name contains WORD")
        parser.add_argument("--top", type=int, default=TOP, metavar="N", help="how many functions are printed")
        parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write a flame graph of each to FOLDER")

    run_benchmark("profile", __doc__, measure_all, runs=1, quick_runs=1, add_options=add_options)


if __name__ == "__main__":
    main()
