"""A long run: SOAK_MESSAGES messages (1,000,000), both connections reset every SOAK_CUT_S seconds (30).

Prints a line every SOAK_SAMPLE_S seconds (10), and at the end what was lost, what was done twice, and whether memory,
file descriptors, threads or tasks grow with time. Exit code 1 where anything was lost or grows.

The ledgers are written before the work goes on, but not forced to the disk: connections are cut here, no machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from tests.node import Node, is_installed
from tests.process import RunnerProcess
from tests.project import Place, Project, lines
from tests.proxy import Proxy

MESSAGES = int(os.environ.get("SOAK_MESSAGES", "1000000"))
CUT_S = float(os.environ.get("SOAK_CUT_S", "30"))
SAMPLE_S = float(os.environ.get("SOAK_SAMPLE_S", "10"))

STANDSTILL_S = 180.0
QUIET_S = 5.0
"""How long nothing more may come before the run counts as complete: some were handled twice, so counts do not tell."""

AT_ONCE = 2 * 20 + 100
"""What one loss may have done twice: what the subscriber holds, and the publications that were on their way."""
GROWTH = {"rss_mb": 1.15, "fds": 1.15, "threads": 1.15, "tasks": 1.15}
"""How much more the last quarter may use at most than the second one. A median would not do: tasks come and go with the
publications that wait, between 27 and 130 of them."""

PIPELINE = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    logging: {messages: false}
    queues: {UNIQUE.soak: {max_length: 5000}}
    producers:
      make: {handler: work:make, to: UNIQUE.soak}
    subscribers:
      soak: {from: UNIQUE.soak, handler: work:handle}
"""
HANDLERS = f"""
    import asyncio, os, time

    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    given, done = os.open("given", flags), os.open(os.environ["LEDGER"], flags)
    next_look = 0.0

    async def make():
        for number in range({MESSAGES}):
            os.write(given, f"{{number}}\\n".encode())
            yield f"{{number}}"

    async def handle(order: str) -> None:
        global next_look
        os.write(done, f"{{order}} 0 {{os.getpid()}}\\n".encode())
        if time.monotonic() > next_look:
            next_look = time.monotonic() + 1
            with open("tasks.new", "w") as file:
                file.write(str(len(asyncio.all_tasks())))
            os.replace("tasks.new", "tasks")
"""


class Lines:
    """Counts the lines of a file that grows, reading each byte once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._count = 0

    def count(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(1 << 20):
                    self._offset += len(data)
                    self._count += data.count(b"\n")
        return self._count


@dataclass(frozen=True)
class Sample:
    """What the process uses at one moment, and how far it has come."""

    seconds: float
    given: int
    handled: int
    cuts: int
    rss_mb: float
    fds: int
    threads: int
    tasks: int

    def row(self) -> str:
        return "  ".join(f"{getattr(self, field.name):>9.6g}" for field in fields(self))


class Soak:
    """One run: a node, a proxy that cuts, a runner, and the samples taken meanwhile."""

    def __init__(self, project: Project, proxy: Proxy, runner: RunnerProcess) -> None:
        self.project = project
        self.samples: list[Sample] = []
        self.cuts = 0
        self._proxy = proxy
        self._runner = runner
        self._since = time.monotonic()
        self._given = Lines(project.folder / "given")
        self._handled = Lines(project.ledger.path)

    async def run(self) -> None:
        """Go on until each message was handled; RuntimeError where nothing moves any more."""
        print("  ".join(f"{field.name:>9}" for field in fields(Sample)), flush=True)
        next_cut, next_sample, moved = self._elapsed() + CUT_S, 0.0, (0, self._elapsed())
        while not (self._is_complete() and self._elapsed() - moved[1] > QUIET_S):
            await asyncio.sleep(0.2)
            now, handled = self._elapsed(), self._handled.count()
            if now >= next_cut:
                self._proxy.cut()
                self.cuts += 1
                next_cut = now + CUT_S
            if now >= next_sample:
                self.samples.append(self._sample(handled))
                print(self.samples[-1].row(), flush=True)
                next_sample = now + SAMPLE_S
            if handled > moved[0]:
                moved = (handled, now)
            elif now - moved[1] > STANDSTILL_S:
                raise RuntimeError(f"nothing was handled for {STANDSTILL_S:.0f} s")

    def _elapsed(self) -> float:
        return time.monotonic() - self._since

    def _is_complete(self) -> bool:
        """Whether every message was handled, as far as counts can tell, and the producer has ended."""
        return self._handled.count() >= MESSAGES and bool(lines(self._runner, "producer.finished"))

    def _sample(self, handled: int) -> Sample:
        process = Path(f"/proc/{self._runner.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        tasks = self.project.folder / "tasks"
        return Sample(
            seconds=round(self._elapsed(), 1),
            given=self._given.count(),
            handled=handled,
            cuts=self.cuts,
            rss_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            fds=len(list((process / "fd").iterdir())),
            threads=int(status["Threads"]),
            tasks=int(tasks.read_text()) if tasks.exists() else 0,
        )


def judge(soak: Soak) -> bool:
    """Print the verdict, and return whether it is good."""
    done: Counter[str] = soak.project.ledger.counts()
    wanted = {str(number) for number in range(MESSAGES)}
    lost, invented = len(wanted - done.keys()), len(done.keys() - wanted)
    twice, bound = done.total() - len(done), soak.cuts * AT_ONCE
    print(f"messages {MESSAGES} · lost {lost} · unexpected {invented} · twice {twice} (at most {bound})")
    is_good = lost == invented == 0 and twice <= bound
    quarter = len(soak.samples) // 4
    if quarter < 2:
        print(f"too few samples to say what grows: {len(soak.samples)}")
        return is_good
    for name, factor in GROWTH.items():
        early = max(getattr(sample, name) for sample in soak.samples[quarter : 2 * quarter])
        late = max(getattr(sample, name) for sample in soak.samples[-quarter:])
        is_steady = late <= early * factor + 3
        is_good = is_good and is_steady
        print(f"{name}: {early:g} in the second quarter, {late:g} in the last{'' if is_steady else ': it grows'}")
    return is_good


async def main() -> bool:
    """Run it and return whether it went well. SIGTERM ends it and what it has started."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    with tempfile.TemporaryDirectory(prefix="mqrunner-soak-") as folder, Node() as node:
        async with Proxy(node.port) as proxy:
            project = Project(Path(folder), f"s{secrets.token_hex(4)}", Place.at(proxy.url))
            project.write(PIPELINE, HANDLERS)
            async with project.running() as runner:
                soak = Soak(project, proxy, runner)
                await soak.run()
            return judge(soak)


if __name__ == "__main__":
    if not is_installed():
        sys.exit("RabbitMQ is not installed")
    sys.exit(0 if asyncio.run(main()) else 1)
