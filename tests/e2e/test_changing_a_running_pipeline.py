"""docs/how-to/change-a-running-pipeline.md, followed on a live broker with traffic; every message is counted after.

The commands are those that the page shows, in its order, and what it shows of their output was printed.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.node import Broker
from tests.process import ROOT, RunnerProcess
from tests.project import Ledger, Place, Project, lines, started, stop, until

PAGE = (ROOT / "docs" / "how-to" / "change-a-running-pipeline.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\S+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

HANDLERS = """
    def write_invoice(order: dict) -> None:
        note(f"invoice {order['id']} {order['price']}")

    def send_receipt(order: dict) -> None:
        note(f"receipt {order['id']} {order['price']}")
"""
BROKEN = HANDLERS.replace("order['price']", "order['total']", 1)
BY_HAND = 0
PAUSE_S = 0.02


class Traffic(threading.Thread):
    """The shop: it pays orders all the time, confirmed and `mandatory`, and notes which the broker has taken over."""

    def __init__(self, url: str, event: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopping = threading.Event()
        self.event = event
        self.confirmed: list[tuple[int, str]] = []
        self.returned = 0

    def run(self) -> None:
        """Publish until stopped; what comes back is published again, under the name that holds then."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.confirm_delivery()
        number = 1
        while not self._stopping.wait(PAUSE_S):
            event = self.event
            body = json.dumps({"id": number, "price": 7}).encode()
            properties = pika.BasicProperties(
                delivery_mode=2, message_id=f"order-{number}", type=event, content_type="application/json"
            )
            try:
                channel.basic_publish("events", event, body, properties, mandatory=True)
            except pika.exceptions.UnroutableError:
                self.returned += 1
                continue
            self.confirmed.append((number, event))
            number += 1
        connection.close()

    def stop(self) -> None:
        """Return when it has ended. Idempotent."""
        self._stopping.set()
        self.join()

    async def goes_on(self, event: str) -> None:
        """Return when three more have been confirmed under this name."""
        before = len(self.confirmed)
        await until(lambda: [name for _, name in self.confirmed[before:]].count(event) >= 3, f"{event} is published")


class Terminal:
    """Types commands in the project's folder, and keeps what was typed, what was printed and how it ended."""

    def __init__(self, project: Project, env: dict[str, str]) -> None:
        self._project = project
        self._env = env
        self.typed: list[tuple[str, RunnerProcess, int | None]] = []

    def up(self) -> RunnerProcess:
        """Start the pipeline; it goes on while other commands run."""
        runner = self._project.run("up", "shop.yaml", env=self._env)
        self.typed.append(("runner up shop.yaml", runner, None))
        return runner

    async def type(self, command: str, code: int = 0, **env: str) -> str:
        """Run a command to its end, and return what it printed for people and programs."""
        async with self._project.run(*shlex.split(command)[1:], env=self._env | env) as runner:
            assert await runner.wait(60) == code, runner.stdout + runner.stderr
        assert "Traceback" not in runner.stderr
        self.typed.append((command, runner, code))
        return runner.stdout + runner.stderr


@pytest.fixture
def url(managed: Broker, unique: str) -> Iterator[str]:
    """A virtual host for this test alone, on the node with the management API: names need not be unique."""
    with managed.vhost(unique) as url:
        yield url


@pytest.fixture
def traffic(url: str) -> Iterator[Traffic]:
    """The shop, not opened yet."""
    traffic = Traffic(url, "order.paid")
    yield traffic
    if traffic.is_alive():
        traffic.stop()


@pytest.mark.timeout(300)
async def test_the_story_of_a_change(tmp_path: Path, managed: Broker, url: str, traffic: Traffic) -> None:
    """Queue type changed, event renamed, handler broken and mended, dead letters sent back; nothing is lost."""
    project = Project(tmp_path, "shop", Place((), url))
    terminal = Terminal(project, {"RUNNER_BROKER": url, "RUNNER_MANAGEMENT": managed.management_url})
    before, change = shown("yaml"), shown("diff")
    project.pipeline(before)
    project.handlers(HANDLERS, "sales")

    async with terminal.up() as old:
        await started(old)
        traffic.start()
        await traffic.goes_on("order.paid")
        assert "2 messages" in await terminal.type("runner tap shop.yaml order.paid --limit 2")
        assert depths(await terminal.type("runner status shop.yaml"), "invoices")["DEAD"] == 0

        project.pipeline(patched(before, change))
        planned = await terminal.type("runner plan shop.yaml --detailed-exitcode", code=2)
        assert "plan: 2 to create, 1 to recreate, 2 extra" in planned

        await terminal.type("runner apply shop.yaml", code=1)
        traffic.event = "order.settled"
        await traffic.goes_on("order.settled")
        await stop(old)

    await traffic.goes_on("order.settled")
    first = len(traffic.confirmed)
    await terminal.type("runner apply shop.yaml --recreate invoices --prune")
    last = len(traffic.confirmed) + 1  # one more may have been on its way
    assert last > first + 3, "publishers went on meanwhile"
    await terminal.type("runner plan shop.yaml --detailed-exitcode")
    await terminal.type(f"""runner publish shop.yaml order.settled '{{"id": {BY_HAND}, "price": 7}}'""")

    project.handlers(BROKEN, "sales")
    async with terminal.up() as broken:
        await started(broken)
        some = await dead_lettered(broken, 20)
        depth = depths(await terminal.type("runner status shop.yaml"), "invoices")["DEAD"]
        await dead_lettered(broken, max(some, depth) + 20)
        assert depths(await terminal.type("runner status shop.yaml"), "invoices")["DEAD"] > depth > 0
        listed = await terminal.type("runner dead list shop.yaml --limit 2")
        letter = re.findall(r"order-\d+", listed)[0]
        assert "KeyError: 'total'" in await terminal.type(f"runner dead show shop.yaml --id {letter}")
        project.handlers(HANDLERS, "sales")
        tried = Ledger(tmp_path / "tried")
        await terminal.type("runner dead replay shop.yaml --local invoices --limit 2", LEDGER=str(tried.path))
        assert len(tried.entries()) == 2
        await stop(broken)
    dead = len(lines(broken, "message.dead_lettered"))

    async with terminal.up() as mended:
        await started(mended)
        replayed = await terminal.type("runner dead replay shop.yaml --rate 200/s")
        assert f"sent back: {dead} of {dead} ({dead} invoices)" in replayed
        await traffic.goes_on("order.settled")
        traffic.stop()
        numbers = [BY_HAND] + [number for number, _ in traffic.confirmed]
        wanted = {f"{what} {number} 7" for number in numbers for what in ("invoice", "receipt")}
        await until(lambda: wanted <= set(project.ledger.payloads()), "every confirmed message is handled", 60)
        clean = await terminal.type("runner status shop.yaml")
        assert "waiting" not in clean
        for queue in ("invoices", "shop.send_receipt"):
            row = depths(clean, queue)
            assert (row["READY"], row["CONSUMERS"], row["DEAD"]) == (0, 1, 0)
        await stop(mended)

    counts = project.ledger.counts()
    assert set(counts) == wanted
    moved = {f"invoice {number} 7" for number, _ in traffic.confirmed[first:last]}
    twice = Counter({what: count for what, count in counts.items() if count > 1})
    assert set(twice) <= moved, "only an event published while the bindings changed may come twice"
    assert set(twice.values()) <= {2}
    assert traffic.returned == 0, "at no time did a name lead nowhere"
    assert not lines(mended, "message.dead_lettered")
    compare(terminal)


def shown(kind: str) -> str:
    """Return the page's one block of this kind."""
    (body,) = [body for info, body in BLOCK.findall(PAGE) if info == kind]
    return str(body)


def patched(text: str, change: str) -> str:
    """Return the text with the removed lines of a diff replaced by the added ones behind them."""
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", change, re.MULTILINE):
        removed, added = (re.sub(r"^.", "", part, flags=re.MULTILINE) for part in (old, new))
        assert text.count(removed) == 1, removed
        text = text.replace(removed, added)
    return text


def depths(printed: str, queue: str) -> dict[str, Any]:
    """Return the row of a queue in what `status` prints; None for what nobody tells."""
    rows = [line.split() for line in printed.splitlines()]
    (head,) = [row for row in rows if row[:1] == ["QUEUE"]]
    (row,) = [row for row in rows if row[:1] == [queue]]
    cells = zip(head[1:], row[1:], strict=True)
    return {key: value if key == "OLDEST" else None if value == "–" else float(value) for key, value in cells}


async def dead_lettered(runner: RunnerProcess, count: int) -> int:
    """Return how many a runner says it has given up on, once there are at least so many."""
    await until(lambda: len(lines(runner, "message.dead_lettered")) >= count, f"{count} dead letters")
    return len(lines(runner, "message.dead_lettered"))


def compare(terminal: Terminal) -> None:
    """Compare what the page shows with what was typed and printed, but for numbers, ids and what `…` stands for."""
    promised: list[tuple[str, list[str]]] = []
    for info, body in BLOCK.findall(PAGE):
        for line in body.splitlines() if info == "text" else ():
            if line.startswith("$ "):
                promised.append((line[2:].removesuffix('; echo "exit code $?"'), []))
            else:
                promised[-1][1].append(line)
    assert [plain(command) for command, _ in promised] == [plain(command) for command, _, _ in terminal.typed]
    for (command, shown_lines), (_, runner, code) in zip(promised, terminal.typed, strict=True):
        printed = [plain(line) for line in (runner.stdout + runner.stderr).splitlines()]
        for line in shown_lines:
            if line.startswith("exit code "):
                assert line == f"exit code {code}", command
                continue
            pattern = re.compile(".*".join(re.escape(part) for part in plain(line).split("…")))
            assert any(map(pattern.fullmatch, printed)), f"$ {command}\nnot printed: {line}\n{runner.stdout}"


def plain(line: str) -> str:
    """Return a line without what differs from run to run."""
    line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
    line = re.sub(r"\d+(\.\d+)?s?\b|–", "0", line)  # an age too: "–" when a queue happens to be empty
    line = re.sub(r"\b(message|consumer)s\b", r"\1", line)
    return re.sub(r"\s+", " ", line).strip()
