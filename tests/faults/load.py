"""What goes on while things fail: messages of another program, and of a producer; handlers note each, on the disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, lines, until

CONCURRENCY = 10
PREFETCH = 2 * CONCURRENCY
UNCONFIRMED = 100
"""How many publications of a producer are on their way at once: any of them may arrive twice."""

PIPELINE = """
    version: 1
    broker: {{urls: {urls}, heartbeat: {heartbeat}, connect_timeout: 30s}}
    logging: {{messages: false}}
    queues: {{UNIQUE.work: {{}}, UNIQUE.made: {{}}}}
    producers:
      make: {{handler: work:make, to: UNIQUE.made}}
    subscribers:
      work: {{from: UNIQUE.work, handler: work:handle}}
      made: {{from: UNIQUE.made, handler: work:handle}}
"""
HANDLERS = """
    import asyncio, os

    def give(item):
        descriptor = os.open("given", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{{item}}\\n".encode())
        os.fsync(descriptor)
        os.close(descriptor)
        return item

    async def make():
        for number in range({made}):
            yield give(f"made-{{number}}")
            await asyncio.sleep({pace_s})

    async def handle(order: str) -> None:
        while not os.path.exists("may_work"):
            await asyncio.sleep(0.05)
        await asyncio.sleep({work_s})
        note(order)
"""


class Load:
    """Work for a project: `sent` messages of another program, `made` of a producer of its own.

    A message takes `work_s` to handle; the producer pauses for `pace_s` between two.
    `urls` are those of a cluster, for a project that names no broker on the command line. Where it `is_held`, handlers
    wait for `release`: then it does not depend on the machine how much is left to do when everything is sent.
    """

    def __init__(
        self,
        project: Project,
        *,
        sent: int = 0,
        made: int = 0,
        work_s: float = 0.02,
        pace_s: float = 0.005,
        heartbeat: str = "10s",
        urls: Sequence[str] = ("amqp://127.0.0.1:1/",),
        is_held: bool = False,
    ) -> None:
        self.project = project
        self.sent = [f"sent-{number}" for number in range(sent)]
        self.made = [f"made-{number}" for number in range(made)]
        self.expected = {*self.sent, *self.made}
        self.queues = [project.name(name) for name in ("work", "made", "work.dead", "made.dead")]
        project.pipeline(PIPELINE.format(heartbeat=heartbeat, urls=list(urls)))
        project.handlers(HANDLERS.format(made=made, pace_s=pace_s, work_s=work_s))
        if not is_held:
            self.release()

    def release(self) -> None:
        """Let handlers work."""
        (self.project.folder / "may_work").touch()

    @property
    def work(self) -> str:
        """The queue that another program publishes to."""
        return self.project.name("work")

    @property
    def kept(self) -> list[str]:
        """All quorum queues that there are."""
        return [*self.queues, f"{self.project.unique}.producers"]

    def send(self, foreign: Foreign) -> None:
        """Publish as another program does, each message confirmed. Blocks."""
        foreign.publish_confirmed(self.work, *(name.encode() for name in self.sent))

    async def send_to(self, url: str) -> None:
        """Publish from a connection of its own, beside the running loop."""

        def run() -> None:
            with Foreign(url) as foreign:
                self.send(foreign)

        await asyncio.to_thread(run)

    def count(self) -> int:
        """Return how many calls the handlers have noted."""
        path = self.project.ledger.path
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def given(self) -> list[str]:
        """Return what the producer has handed out."""
        path = self.project.folder / "given"
        return path.read_text().split() if path.exists() else []

    def done(self) -> Counter[str]:
        """Return how often each message was handled."""
        return self.project.ledger.counts()

    async def reach(self, count: int, timeout: float = 30.0) -> None:
        """Wait until so many calls are noted."""
        await until(lambda: self.count() >= count, f"{count} handled", timeout)

    async def finish(self, timeout: float = 60.0) -> None:
        """Wait until each message was handled at least once."""
        await until(
            lambda: self.count() >= len(self.expected) and self.done().keys() >= self.expected,
            f"everything handled: {len(self.expected)} messages",
            timeout,
        )


def losses(runner: RunnerProcess) -> Counter[str]:
    """Return how often each of the two connections was lost, by role."""
    return Counter(line["role"] for line in lines(runner, "broker.lost"))


def resumed(runner: RunnerProcess) -> int:
    """Return how often a subscriber has been registered again."""
    return len(lines(runner, "consumer.resumed"))


def is_back(runner: RunnerProcess, subscribers: int = 2) -> bool:
    """Whether each connection was made again as often as it was lost, and each subscriber registered again on it."""
    lost = losses(runner)
    made = Counter(line["role"] for line in lines(runner, "broker.connected") if "role" in line)
    return made == lost and resumed(runner) >= subscribers * lost["consume"]


async def both_lost(runner: RunnerProcess, before: Counter[str], timeout: float = 40.0) -> None:
    """Wait until both connections are known to be lost, once more than before."""
    roles = ("consume", "publish")
    await until(lambda: all(losses(runner)[role] > before[role] for role in roles), "it notices both losses", timeout)


def check_quiet(runner: RunnerProcess) -> None:
    """Check that neither the log nor standard error has a traceback, and that no line is an unexpected error."""
    assert "Traceback" not in runner.stderr
    assert [line for line in runner.logs if "exception" in line or "Traceback" in str(line)] == []
