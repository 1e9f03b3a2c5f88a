"""S12 and S19: the commands that look at a broker that runs, or change it, tell neither passwords nor raw bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.foreign import Foreign
from tests.node import free_port
from tests.project import Project, started, stop
from tests.security.conftest import Canary

PIPELINE = """
    version: 1
    broker: {url: "${BROKER}", connect_timeout: 300ms}
    queues: {UNIQUE.work: {}, UNIQUE.other: {events: [UNIQUE.paid]}}
    events: {UNIQUE.paid: }
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, retry: none}
"""
HANDLERS = """
    import os
    def handle(order: bytes) -> None: raise RuntimeError("never\\n\\x1b[31m\\u2028")
"""

LOOKING = [
    ("plan", (), ()),
    ("plan", (), ("--json",)),
    ("apply", (), ()),
    ("status", (), ()),
    ("status", (), ("--json",)),
    ("tap", ("PAID",), ("--limit", "1")),
    ("dead list", (), ()),
    ("dead show", (), ("--id", "nobody")),
    ("dead replay", (), ("--dry-run",)),
    ("dead drop", (), ("--dry-run", "--all")),
]


def prepare(project: Project) -> None:
    project.write(PIPELINE, HANDLERS)


def command(project: Project, verb: str, names: tuple[str, ...], options: tuple[str, ...]) -> tuple[str | Path, ...]:
    filled = (project.name("paid") if name == "PAID" else name for name in names)
    return (*verb.split(), project.file, *filled, *options)


@pytest.mark.parametrize("looking", LOOKING, ids=lambda looking: " ".join((looking[0], *looking[2])))
async def test_commands_that_find_no_broker_do_not_say_it(
    memory_project: Project, special: Canary, looking: tuple[str, tuple[str, ...], tuple[str, ...]]
) -> None:
    """Refused, or not let in: the address is told without the password."""
    prepare(memory_project)
    wrong = Canary("guest", special.password, special.port)
    url = special.url_at(free_port()) if "--json" in looking[2] else wrong.url
    runner = await memory_project.run_to_end(*command(memory_project, *looking), env={"BROKER": url}, code=69)
    said = runner.stdout + runner.stderr
    assert "Traceback" not in said
    assert not special.found_in(said), said


async def test_commands_that_find_their_broker_do_not_say_it_either(
    rabbit_project: Project, special: Canary, foreign: Foreign
) -> None:
    """Also with a management API that refuses, and with hostile dead letters, which come out escaped."""
    prepare(rabbit_project)
    env = {"BROKER": special.url}
    evil = "id\n\x1b]0;title\x07\x1b[2J\u2028\u202e"
    async with rabbit_project.run("up", rabbit_project.file, env=env) as runner:
        await started(runner)
        foreign.publish(
            rabbit_project.name("work"), b"\x1b[2J\xff\x00\x80" * 1000, message_id=evil, headers={"x-evil": evil}
        )
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await stop(runner)
    async with Refusing() as management:
        for verb, names, options in LOOKING:
            if verb == "tap":
                continue
            more = ("--management", management) if verb in ("plan", "status") else ()
            filled = tuple(evil if option == "nobody" else option for option in options)
            arguments = command(rabbit_project, verb, names, (*filled, *more))
            async with rabbit_project.run(*arguments, env=env) as runner:
                code = await runner.wait()
            said = runner.stdout + runner.stderr
            assert code == 0, (arguments, said)
            assert ("RuntimeError" in said or "never" in said) == verb.startswith("dead"), (arguments, said)
            assert "Traceback" not in said
            assert not special.found_in(said), said
            assert not {"\x1b", "\x07", "\x00", "\u2028", "\u202e"} & set(said), (arguments, said)
    assert len(foreign.take(rabbit_project.name("work.dead"))) == 1


async def test_a_tap_shows_what_goes_by_escaped(rabbit_project: Project, special: Canary, foreign: Foreign) -> None:
    """Of a message whose body and id want to drive the terminal."""
    prepare(rabbit_project)
    env = {"BROKER": special.url}
    async with rabbit_project.run("up", rabbit_project.file, env=env) as runner:
        await started(runner)
        await stop(runner)
    arguments = command(rabbit_project, "tap", ("PAID",), ("--limit", "1"))
    async with rabbit_project.run(*arguments, env=env) as runner:
        ended = asyncio.create_task(runner.wait())
        while not ended.done():  # a tap hears what is published from when it listens on
            foreign.publish(rabbit_project.name("paid"), b"\x1b[2J\xff", exchange="events", message_id="a\x1b[31m\nb")
            await asyncio.wait([ended], timeout=0.1)
        assert ended.result() == 0
    said = runner.stdout + runner.stderr
    assert not {"\x1b", "\u2028"} & set(said)
    assert not special.found_in(said)


class Refusing:
    """A management API that lets nobody in, and says so with the password it was given."""

    async def __aenter__(self) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(head), head))
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
