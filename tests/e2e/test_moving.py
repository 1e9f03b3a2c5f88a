"""`runner export messages` and `import messages`: from a broker in a file to RabbitMQ and back, killed on the way."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.operations import message_transfer
from runner.operations.memory_access import make_access
from runner.system import System, load, select_destination
from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Place, Project, started, stop

PIPELINE = """
    version: 1
    queues: {UNIQUE.orders: {}, UNIQUE.reminders: {}}
    delays: [UNIQUE.reminders]
    subscribers:
      ship: {from: UNIQUE.orders, handler: json:loads, retry: {attempts: 2, delay: 5m}}
"""
COUNT, GROUP = 1500, message_transfer.GROUP
FILE = "messages.jsonl"
NEVER = "9999-01-01T00:00:00+00:00"


@pytest.fixture
def shop(tmp_path: Path, unique: str, on_rabbitmq: Place) -> Project:
    project = Project(tmp_path, unique, on_rabbitmq)
    project.pipeline(PIPELINE)
    return project


def in_file(shop: Project) -> Place:
    return Place.at(f"file:{shop.folder / 'shop.queue'}")


def load_at(shop: Project, place: Place) -> System:
    return load([shop.folder / shop.file], {}, broker=place.url)


def lines_of(shop: Project) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shop.folder / FILE).read_text().splitlines()[1:]]


def exporting(shop: Project, place: Place) -> RunnerProcess:
    return shop.run("export", "messages", shop.file, "--output", FILE, *place.arguments)


def importing(shop: Project, place: Place) -> RunnerProcess:
    return shop.run("import", "messages", FILE, shop.file, *place.arguments)


async def done(process: RunnerProcess, code: int = 0) -> str:
    """Run a process to its end, and return what it says."""
    async with process as ended:
        assert await ended.wait() == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


async def killed(process: RunnerProcess, file: Path, size: int) -> None:
    """Kill a process as soon as a file has a size, while it is at work."""
    async with process as running, asyncio.timeout(20):
        while not file.exists() or file.stat().st_size < size:
            await asyncio.sleep(0.001)
        running.signal(signal.SIGKILL)
        assert await running.wait() == -signal.SIGKILL


async def export(system: System, file: Path) -> None:
    """Export all messages of a broker."""
    access = make_access(system.broker, name="tests")
    await access.open()
    with message_transfer.open_locked(file) as opened:
        message_transfer.prepare(opened, file)
        places = message_transfer.places(system.pipelines)
        assert await message_transfer.MessageExport(access, places, opened, asyncio.Event()).run() == 0
    await access.close()


async def moved(shop: Project, old: Place, new: Place) -> list[dict[str, Any]]:
    """Move all messages between two brokers, and return the lines of the file."""
    file = shop.folder / FILE
    file.unlink(missing_ok=True)
    Path(f"{file}.done").unlink(missing_ok=True)
    await export(load_at(shop, old), file)
    system = load_at(shop, new)
    transport = app.make_transport(system, lambda _: None)
    await transport.connect()
    await message_transfer.MessageImport(transport, system.pipelines, file, asyncio.Event()).run(system.topology)
    await transport.close()
    return lines_of(shop)


def first_of_each(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


@pytest.mark.parametrize("way", ["to RabbitMQ", "to a file"])
async def test_nothing_is_lost_when_both_are_killed_and_the_order_is_kept(shop: Project, way: str) -> None:
    old, new = in_file(shop), shop.place
    if way == "to a file":
        old, new = new, old
    ids = await app.publish(load_at(shop, old), shop.name("orders"), [b"%d" % number for number in range(COUNT)])

    await killed(exporting(shop, old), shop.folder / FILE, 50_000)
    assert GROUP < len((shop.folder / FILE).read_bytes().splitlines()) < COUNT
    assert "left" not in await done(exporting(shop, old))
    exported = [line["message_id"] for line in lines_of(shop)]
    assert first_of_each(exported) == ids
    assert len(exported) <= COUNT + GROUP

    progress = shop.folder / f"{FILE}.done"
    await killed(importing(shop, new), progress, 1)
    assert 0 < int(progress.read_text().split()[1]) < len(exported)
    assert "were imported before" in await done(importing(shop, new))
    (shop.folder / FILE).rename(shop.folder / "imported.jsonl")
    await export(load_at(shop, new), shop.folder / FILE)
    arrived = [line["message_id"] for line in lines_of(shop)]
    assert first_of_each(arrived) == ids
    assert len(arrived) <= len(exported) + GROUP


async def test_retries_dead_letters_and_delayed_messages_go_there_and_back(shop: Project, foreign: Foreign) -> None:
    """With their attempts, their reason and what is left of their delay: from a file to RabbitMQ, and to a file."""
    orders, file = shop.name("orders"), in_file(shop)
    system = load_at(shop, file)
    await app.publish(select_destination(system, shop.name("reminders")), shop.name("reminders"), [b"9"], delay="2h")
    await app.publish(system, orders, [b'"no JSON"'])
    async with shop.run("up", shop.file, *file.arguments) as up:
        await started(up)
        await up.wait_for(lambda line: line["event"] == "message.retry")
        assert f'a process takes messages from "{orders}"' in await done(exporting(shop, file), code=1)
        await stop(up)
    await app.publish(system, orders, [b"1"])

    first = await moved(shop, file, shop.place)
    assert [line["body"] for line in first] == ["9", '"no JSON"', "1"]
    assert (foreign.count(orders), foreign.count(f"{shop.unique}.retry.300000")) == (1, 1)
    headers = {"x-runner-attempt": 2, "x-runner-origin": orders, "x-runner-reason": "rejected"}
    foreign.publish(f"{orders}.dead", b"dead", headers=headers)
    second = await moved(shop, shop.place, file)
    assert [line["body"] for line in second] == ["9", '"no JSON"', "1", "dead"]
    assert second[1]["headers"]["map"]["x-runner-attempt"] == 2
    assert headers.items() <= second[3]["headers"]["map"].items()
    third = await moved(shop, file, file)
    for before, after in [*zip(first, second, strict=False), *zip(second, third, strict=True)]:
        assert without_way(before) == without_way(after)
        late = datetime.fromisoformat(after.get("due", NEVER)) - datetime.fromisoformat(before.get("due", NEVER))
        assert -2 < late.total_seconds() < 330  # RabbitMQ does not say since when a retry waits


def without_way(line: dict[str, Any]) -> dict[str, Any]:
    """Return what a message keeps: all but the steps of its delay, and where it came from on its broker."""
    headers = {name: value for name, value in line.get("headers", {}).get("map", {}).items() if value is not True}
    return {**{name: value for name, value in line.items() if name not in ("due", "exchange")}, "headers": headers}
