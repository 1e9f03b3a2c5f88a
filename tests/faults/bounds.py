"""How much memory a runner takes when much waits, bodies are large, the broker blocks, or handlers are slow.

    python -m tests.faults.bounds [WORD …]      # only the cases whose name has one of these words

Each case is a real `runner up`, on a private node or on the in-process broker, watched for BOUNDS_S seconds (40). It
prints a line for each: resident memory early and late, its slope, and whether it grows; exit code 1 where any does.
Handlers and producers count in a file that is mapped into memory, so that counting costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import pika

from tests.node import Node, is_installed
from tests.process import RunnerProcess
from tests.project import MEMORY, Place, Project, started, until

WATCH_S = float(os.environ.get("BOUNDS_S", "40"))
BACKLOG = int(os.environ.get("BOUNDS_BACKLOG", "1000000"))
SAMPLE_S = 0.2
FILLERS = 2
MB = 1_000_000

GROWTH = 1.1
SLACK_MB = 4.0
"""How much more the last quarter of a case may take than the second one: a tenth, and what the allocator does."""

MANY, STEEP = 30_000, 0.03
"""Where many messages have passed, also what each has left behind counts: 30 bytes are more than the allocator does."""

HEAD = """
    import asyncio, itertools, mmap, time

    file = open("count", "r+b")
    counts = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")
    LARGE = "x" * 1_000_000
"""


@dataclass(frozen=True)
class Sample:
    """One look at a process: when, how many messages were handled and given, and its memory in MB."""

    seconds: float
    handled: int
    given: int
    rss_mb: float


@dataclass
class Row:
    """What a case has found. `limit_mb` is what it may take at all; `ready_s` how long it may take to fill up."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    limit_mb: float = float("inf")
    note: str = ""

    @property
    def messages(self) -> int:
        return max(self.samples[-1].handled, self.samples[-1].given)

    @property
    def early_mb(self) -> float:
        return self._median(0.25, 0.5)

    @property
    def late_mb(self) -> float:
        return self._median(0.75, 1.0)

    @property
    def slope(self) -> float | None:
        """MB for each 1,000 messages in the last three quarters; None where hardly any message passed."""
        part = self.samples[len(self.samples) // 4 :]
        xs = [max(sample.handled, sample.given) / 1000 for sample in part]
        ys = [sample.rss_mb for sample in part]
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        square = sum((x - mean_x) ** 2 for x in xs)
        if xs[-1] - xs[0] < 0.05:
            return None
        return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / square

    @property
    def complaint(self) -> str:
        """What is wrong; empty where nothing is."""
        is_steady = self.slope is None or self.messages < MANY or self.slope < STEEP
        if self.late_mb > self.early_mb * GROWTH + SLACK_MB or not is_steady:
            return "grows"
        if max(sample.rss_mb for sample in self.samples) > self.limit_mb:
            return f"more than {self.limit_mb:.0f} MB"
        return ""

    def cells(self) -> tuple[str, ...]:
        slope = "" if self.slope is None else f"{self.slope:+.4f}"
        peak = max(sample.rss_mb for sample in self.samples)
        numbers = (f"{self.early_mb:.1f}", f"{self.late_mb:.1f}", f"{peak:.1f}", slope)
        return (self.name, f"{self.messages:,}", *numbers, self.complaint or "flat", self.note)

    def _median(self, first: float, last: float) -> float:
        count = len(self.samples)
        return median(sample.rss_mb for sample in self.samples[int(count * first) : max(1, int(count * last))])


HEADINGS = ("case", "messages", "RSS early", "RSS late", "peak", "MB/1,000", "verdict", "")


class Subject:
    """A project under observation: its runner's memory, and what its handlers have counted."""

    def __init__(self, project: Project, row: Row) -> None:
        self.project = project
        self.row = row
        self._since = time.monotonic()
        (project.folder / "count").write_bytes(bytes(16))

    def counts(self) -> tuple[int, int]:
        """Return how many messages were handled, and how many given."""
        handled, given = struct.unpack("QQ", (self.project.folder / "count").read_bytes())
        return handled, given

    def look(self, runner: RunnerProcess) -> Sample:
        """Take a sample."""
        status = Path(f"/proc/{runner.pid}/status").read_text()
        rss_kb = int(status.partition("VmRSS:")[2].split()[0])
        sample = Sample(time.monotonic() - self._since, *self.counts(), rss_kb * 1024 / MB)
        self.row.samples.append(sample)
        return sample

    async def watch(self, runner: RunnerProcess, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Take samples for so long, or until there was enough."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not enough():
            self.look(runner)
            await asyncio.sleep(SAMPLE_S)


class Bench:
    """Makes the cases. `watch_s` is how long each is watched."""

    def __init__(self, node: Node | None, watch_s: float = WATCH_S, backlog: int = BACKLOG) -> None:
        self.node = node
        self.watch_s = watch_s
        self.backlog = backlog

    @contextlib.asynccontextmanager
    async def subject(
        self, name: str, pipeline: str, handlers: str, *, memory: bool = False, limit_mb: float = float("inf")
    ) -> AsyncIterator[Subject]:
        """Write a project; its queues begin with a word of its own, and are deleted with it."""
        place = MEMORY
        if not memory:
            assert self.node is not None
            place = Place.at(self.node.url)
        with tempfile.TemporaryDirectory(prefix="mqrunner-bounds-") as folder:
            project = Project(Path(folder), f"b{secrets.token_hex(4)}", place)
            project.write("version: 1\nlogging: {messages: false}\n" + pipeline, HEAD + handlers)
            yield Subject(project, Row(name, limit_mb=limit_mb))
            if not memory:
                await asyncio.to_thread(self._delete, project.unique)

    async def backlogged(self, name: str, backlog: int, *, work: str = "", watch_s: float = 0.0) -> Row:
        """Messages of 100 B wait in the queue; `work` is what the handler does before it counts."""
        pipeline = "queues: {UNIQUE.work: {}}\nsubscribers: {work: {from: UNIQUE.work, handler: 'work:handle'}}\n"
        handlers = f"""
    async def handle(order: str) -> None:
        {work or "pass"}
        counts[0] += 1
    """
        async with self.subject(name, pipeline, handlers) as subject:
            async with subject.project.up() as runner:
                await started(runner)
                await end(runner)
            assert self.node is not None
            took_s = await asyncio.to_thread(fill, self.node.url, subject.project.name("work"), backlog)
            subject.row.note = f"filled in {took_s:.0f} s" if took_s > 5 else ""
            async with subject.project.up() as runner:
                await started(runner)
                if backlog < 10_000:
                    await until(lambda: subject.counts()[0] >= backlog, "all are handled", 60)
                    await subject.watch(runner, 5)
                else:
                    await subject.watch(runner, watch_s or self.watch_s, lambda: subject.counts()[0] >= backlog)
                await end(runner)
            return subject.row

    async def large(self, name: str, *, hop: bool, limit_mb: float) -> Row:
        """Bodies of 1 MB, with the default prefetch of 20; at most sixty of them wait on the broker."""
        pipeline = "queues: {UNIQUE.work: {}, UNIQUE.next: {}}\nsubscribers:\n"
        pipeline += "  work: {from: UNIQUE.work, handler: 'work:%s'}\n" % (
            "pass_on', to: 'UNIQUE.next" if hop else "handle"
        )
        pipeline += "  next: {from: UNIQUE.next, handler: 'work:handle'}\n"
        handlers = """
    async def pass_on(order: str) -> str:
        counts[1] += 1
        return order

    async def handle(order: str) -> None:
        await asyncio.sleep(0.02)
        counts[0] += 1
    """
        async with self.subject(name, pipeline, handlers, limit_mb=limit_mb) as subject:
            assert self.node is not None
            async with subject.project.up() as runner:
                await started(runner)
                pressing = Pressing(
                    self.node.url, subject.project.name("work"), f'"{"x" * MB}"'.encode(), lambda: subject.counts()[0]
                )
                with pressing:
                    await subject.watch(runner, self.watch_s)
                await end(runner)
            return subject.row

    async def producing(
        self,
        name: str,
        give: str,
        *,
        memory: bool = False,
        work: str = "pass",
        limit_mb: float = float("inf"),
        fill_s: float = 0.0,
        subscriber: str = "",
        seconds: float | None = None,
    ) -> Row:
        """A producer without a rate gives without an end; memory is watched from `fill_s` after the start."""
        pipeline = f"""
queues: {{UNIQUE.work: {{}}}}
producers: {{make: {{handler: 'work:make', to: UNIQUE.work}}}}
subscribers: {{work: {{from: UNIQUE.work, handler: 'work:handle', {subscriber}}}}}
"""
        handlers = f"""
    async def make():
        for number in itertools.count():
            counts[1] += 1
            yield {give}

    async def handle(order: str) -> None:
        {work}
        counts[0] += 1
    """
        async with self.subject(name, pipeline, handlers, memory=memory, limit_mb=limit_mb) as subject:
            async with subject.project.up() as runner:
                await started(runner)
                await asyncio.sleep(fill_s)
                await subject.watch(runner, seconds or self.watch_s)
                await end(runner)
            return subject.row

    async def blocked(self, name: str, give: str, *, limit_mb: float, blocked_s: float = 20.0) -> Row:
        """The broker has its memory alarm; a producer without a rate waits, and goes on when the alarm is over."""
        pipeline = """
queues: {UNIQUE.work: {}}
producers: {make: {handler: 'work:make', to: UNIQUE.work}}
subscribers: {work: {from: UNIQUE.work, handler: 'work:handle'}}
"""
        handlers = f"""
    async def make():
        for number in itertools.count():
            counts[1] += 1
            yield {give}
            await asyncio.sleep(0)

    async def handle(order: str) -> None:
        counts[0] += 1
    """
        assert self.node is not None
        async with self.subject(name, pipeline, handlers, limit_mb=limit_mb) as subject:
            async with subject.project.up() as runner:
                await started(runner)
                await until(lambda: subject.counts()[0] > 20, "it works", 30)
                await asyncio.to_thread(self.node.ctl, "set_vm_memory_high_watermark", "0.00001")
                try:
                    await runner.wait_for(lambda line: line["event"] == "broker.blocked")
                    await asyncio.sleep(1)
                    before = subject.counts()[1]
                    await subject.watch(runner, blocked_s)
                    given = subject.counts()[1] - before
                finally:
                    await asyncio.to_thread(self.node.ctl, "set_vm_memory_high_watermark", "0.4")
                handled = subject.counts()[0]
                await until(lambda: subject.counts()[0] > handled + 200, "it goes on", 60)
                await end(runner)
            subject.row.note = f"{given} given while blocked"
            if given > 0:
                subject.row.limit_mb = 0.0
            return subject.row

    async def results(self, name: str, *, memory: bool) -> Row:
        """One message of which a handler makes a million results."""
        pipeline = """
queues: {UNIQUE.work: {}, UNIQUE.next: {}}
producers: {make: {handler: 'work:make', to: UNIQUE.work}}
subscribers:
  work: {from: UNIQUE.work, handler: 'work:fan_out', to: UNIQUE.next}
  next: {from: UNIQUE.next, handler: 'work:handle'}
"""
        handlers = """
    def make():
        return "go"

    def fan_out(order: str):
        for number in range(1_000_000):
            counts[1] += 1
            yield f"result {number} " + 80 * "x"

    async def handle(order: str) -> None:
        counts[0] += 1
    """
        async with self.subject(name, pipeline, handlers, memory=memory) as subject:
            async with subject.project.up() as runner:
                await started(runner)
                await subject.watch(runner, self.watch_s, lambda: subject.counts()[0] >= 1_000_000)
                await end(runner)
            return subject.row

    async def stuck(self, name: str, backlog: int) -> Row:
        """One handler never ends, while all others go on: a first message that is not acknowledged."""
        first = "if not counts[1]: counts[1] = 1; await asyncio.sleep(3600)"
        return await self.backlogged(name, backlog, work=first)

    def _delete(self, unique: str) -> None:
        assert self.node is not None
        names = [name for name in self.node.ctl("list_queues", "name").split() if name.startswith(unique)]
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url))
        channel = connection.channel()
        for name in names:
            channel.queue_delete(name)
        connection.close()


class Pressing:
    """Another program that publishes large messages, confirmed, and never more than some ahead of `handled`."""

    AHEAD = 60

    def __init__(self, url: str, queue: str, body: bytes, handled: Callable[[], int]) -> None:
        self._url, self._queue, self._body, self._handled = url, queue, body, handled
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.confirm_delivery()
        sent = 0
        while not self._is_over.is_set():
            if sent - self._handled() >= self.AHEAD:
                connection.sleep(0.02)
                continue
            channel.basic_publish("", self._queue, self._body, pika.BasicProperties(delivery_mode=2), mandatory=True)
            sent += 1
        connection.close()

    def __enter__(self) -> Pressing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def fill(url: str, queue: str, count: int) -> float:
    """Put messages of 100 B into a queue, from several processes; return how many seconds that took."""
    since = time.monotonic()
    if count < 10_000:
        _fill_part(url, queue, count)
    else:
        with ProcessPoolExecutor(FILLERS) as pool:
            for part in [pool.submit(_fill_part, url, queue, count // FILLERS) for _ in range(FILLERS)]:
                part.result()
    return time.monotonic() - since


def _fill_part(url: str, queue: str, count: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    body, properties = f'"{"x" * 98}"'.encode(), pika.BasicProperties(delivery_mode=2)
    for _ in range(count):
        channel.basic_publish("", queue, body, properties)
    channel.close()  # answered after everything before it
    connection.close()


async def end(runner: RunnerProcess) -> None:
    """End a runner that may have handlers which never end: ask, then kill."""
    runner.signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(runner.pid, signal.SIGKILL)
    await runner.wait()


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[str], object]]]:
    """Yield the cases by name."""
    slow, endless = "await asyncio.sleep(0.01)", "'x' * 100"
    yield "1,000 waiting on RabbitMQ", lambda name: bench.backlogged(name, 1000)
    yield "blocked broker", lambda name: bench.blocked(name, endless, limit_mb=80)
    yield "blocked broker, 1 MB bodies", lambda name: bench.blocked(name, "LARGE", limit_mb=450)
    yield "1 MB bodies consumed", lambda name: bench.large(name, hop=False, limit_mb=150)
    yield "1 MB bodies passed on", lambda name: bench.large(name, hop=True, limit_mb=250)
    yield "1 MB bodies produced", lambda name: bench.producing(name, "LARGE", limit_mb=450)
    yield "a million results", lambda name: bench.results(name, memory=False)
    yield "one handler never ends", lambda name: bench.stuck(name, max(1000, bench.backlog // 5))
    yield (
        "handlers of 1 s, 100,000 waiting",
        lambda name: bench.backlogged(name, 100_000, work="await asyncio.sleep(1)"),
    )
    yield f"{bench.backlog:,} waiting on RabbitMQ", lambda name: bench.backlogged(name, bench.backlog)
    yield "in-process: endless producer", lambda name: bench.producing(name, endless, memory=True, work=slow, fill_s=25)
    yield (
        "in-process: 1 MB bodies",
        lambda name: bench.producing(name, "LARGE", memory=True, work=slow, fill_s=10, limit_mb=700),
    )
    yield "in-process: a million results", lambda name: bench.results(name, memory=True)
    body, work = "'x' * 20_000", "raise ValueError"
    for what, retry in (("retries wait", "{attempts: 3, delay: 5m}"), ("dead letters", "none")):
        yield (
            f"in-process: {what}",
            partial(
                bench.producing,
                give=body,
                memory=True,
                work=work,
                subscriber=f"retry: {retry}",
                fill_s=45,
                limit_mb=800,
            ),
        )


def compared(rows: Sequence[Row]) -> str:
    """Return what is wrong with how the memory of the largest backlog compares with that of the smallest."""
    few = next((row for row in rows if row.name.startswith("1,000 waiting")), None)
    many = next((row for row in rows if row.name.endswith("waiting on RabbitMQ") and row is not few), None)
    if few is None or many is None:
        return ""
    ratio = many.late_mb / few.late_mb
    many.note += f" {ratio:.2f} times that of 1,000"
    return "" if ratio <= GROWTH else f"a large backlog takes {ratio:.2f} times the memory of a small one"


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    for line in table:
        cells = [
            cell.rjust(width) if 1 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


async def main(words: Sequence[str]) -> bool:
    """Run the cases and return whether nothing grows. SIGTERM ends it and what it has started."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    rows: list[Row] = []
    failed = []
    with Node() if is_installed() else contextlib.nullcontext() as node:
        for name, run in cases(Bench(node)):
            if (words and not any(word in name for word in words)) or (node is None and "in-process" not in name):
                continue
            try:
                row = await run(name)
            except (AssertionError, TimeoutError) as error:
                failed.append(name)
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            rows.append(row)
            print(" · ".join(row.cells()), f"· load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    complaint = compared(rows)
    show(rows)
    if complaint:
        print(complaint)
    return not complaint and not failed and not any(row.complaint for row in rows)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(sys.argv[1:])) else 1)
