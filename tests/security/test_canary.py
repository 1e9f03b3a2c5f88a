"""S12: the password of the broker goes through every command and every failure, and is seen nowhere."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.project import Project, lines, started, stop
from tests.proxy import Proxy
from tests.security.conftest import Canary

PIPELINE = """
    version: 1
    broker: {url: "${BROKER}", connect_timeout: 300ms}
    queues: {UNIQUE.work: {}, UNIQUE.odd: {}}
    resources: {db: {factory: work:connect, with: {dsn: "${DATABASE}", password: "${WORD}"}}}
    producers:
      send: {handler: work:send, to: UNIQUE.odd}
    subscribers:
      handle: {from: UNIQUE.work, handler: work:handle, retry: {attempts: 2, backoff: fixed, delay: 10ms}}
      apart: {from: UNIQUE.odd, handler: work:apart, run_in: process, retry: none}
"""
HANDLERS = """
    import logging, os
    import structlog

    class Connection:
        def __init__(self, dsn): self.dsn = dsn
        def __repr__(self): return f"Connection({self.dsn})"

    def connect(dsn, password): return Connection(dsn)

    def send(): yield "go"

    def handle(order: str, db) -> None:
        structlog.get_logger().info("settings", dsn=db.dsn, db=db, settings={"broker": [os.environ["BROKER"]]})
        logging.getLogger("shop").warning("cannot reach %s", db.dsn)
        try:
            raise ConnectionError(f"cannot log in at {db.dsn}")
        except ConnectionError as error:
            raise RuntimeError(f"settings {{'url': '{os.environ['BROKER']}'}}") from error

    def apart(order: str) -> None:
        note("apart")
        raise RuntimeError(f"from afar: {os.environ['BROKER']}")
"""


def prepare(project: Project, text: str = PIPELINE) -> None:
    project.write(text, HANDLERS)


def settings(canary: Canary, url: str = "") -> dict[str, str]:
    url = url or canary.url
    return {"BROKER": url, "DATABASE": url.replace("amqp", "postgres", 1), "WORD": canary.password}


async def output_of(project: Project, env: Mapping[str, str], *arguments: str | Path, codes: tuple[int, ...]) -> str:
    """Run a command to its end, which is as expected, and return all that it wrote."""
    async with project.run(*arguments, env=env) as runner:
        code = await runner.wait()
    said = runner.stdout + runner.stderr
    assert code in codes, said
    assert "Traceback (most" not in runner.stderr, said
    return said


async def silent(canary: Canary, project: Project, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command to its end, check that the password is not in its output, and return that."""
    said = await output_of(project, settings(canary), *arguments, codes=codes)
    assert not canary.found_in(said), said
    return said


PRINTING = [
    ("validate",),
    ("validate", "--format", "json"),
    ("validate", "--no-imports"),
    ("config",),
    ("config", "--origin"),
    *(("graph", "--format", form) for form in ("text", "mermaid", "dot", "svg", "json")),
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
async def test_no_command_prints_it(memory_project: Project, special: Canary, arguments: tuple[str, ...]) -> None:
    """Whether it came from a variable, as that of the broker, or is written in the file, as that of the resource."""
    text = PIPELINE.replace("${DATABASE}", special.url).replace("${WORD}", special.password)
    prepare(memory_project, text)
    verb, *rest = arguments
    await silent(special, memory_project, verb, memory_project.file, *rest)


BROKEN = (
    'broker: {url: "URL", heartbeet: 3}',
    'broker: {urls: "URL", url: "URL"}',
    'broker: ["URL"]',
    'brokers: "URL"',
    '"URL": 1',
    'include: ["URL"]',
    'queues: {"URL": {typ: 1}}\nsubscribers: {a: {from: "URL", handler: "URL", to: "URL"}}',
    'broker: {url: "URL?heartbeat=3"}',
    'broker: {url: "URL", tls: {ca: "URL"}}',
    'python_path: ["URL"]\nqueues: 1',
    'telemetry: {http: "URL"}',
    'queues: {a: }\nproducers: {b: {file: "URL", to: a}}',
    "broker: {url: 'URL\"",
)


@pytest.mark.parametrize("form", ["full", "concise", "json", "github"])
async def test_it_is_hidden_where_everything_else_is_wrong(memory_project: Project, special: Canary, form: str) -> None:
    """In every excerpt and help of files that are invalid: from the text, a variable, and a file for secrets."""
    (memory_project.folder / "secret").write_text(special.url)
    for number, url in enumerate((special.url, "${BROKER}", "${file:../secret}")):
        for index, broken in enumerate(BROKEN):
            text = f"version: 1\n{broken}\n".replace("URL", url)
            memory_project.pipeline(text, file=f"all/{number}-{index}.yaml")
    said = await silent(special, memory_project, "validate", "all", "--format", form, codes=(78,))
    told = set(re.findall(r"\d+-\d+\.yaml", said))
    assert {f"{number}-{index}.yaml" for number in (0, 1, 2) for index in range(len(BROKEN))} <= told


async def test_it_is_not_said_while_everything_works_and_fails(
    rabbit_project: Project, canary: Canary, foreign: Foreign, rabbitmq: Broker
) -> None:
    """At debug level, with handlers that log and raise the settings, and a connection that is killed.

    The dead letter itself has its own test, below.
    """
    prepare(rabbit_project)
    async with Proxy(rabbitmq.port) as proxy:
        env = settings(canary, canary.url_at(proxy.port))
        async with rabbit_project.run("up", rabbit_project.file, "--log-level", "debug", env=env) as runner:
            await started(runner)
            await rabbit_project.ledger.wait_for(1)  # there is a process for handlers now
            assert not canary.found_in(titles_of(runner.pid))
            proxy.cut()
            await runner.wait_for(lambda line: line["event"] == "broker.lost")
            await runner.wait_for(lambda _: len(lines(runner, "broker.connected")) >= 3)
            foreign.publish(rabbit_project.name("work"), b"one")
            await runner.wait_for(lambda _: len(lines(runner, "message.dead_lettered")) == 2)
            await stop(runner)
    said = runner.stdout + runner.stderr
    assert {"settings", "cannot reach", "message.retry"} <= {
        line["event"].partition(" postgres")[0] for line in runner.logs
    }
    assert said.count("***") >= 10
    assert not canary.found_in(said), said
    assert not canary.found_in(rabbit_project.ledger.path.read_text())


async def test_it_is_in_no_dead_letter(rabbit_project: Project, canary: Canary, foreign: Foreign) -> None:
    """Whatever a handler says in its exception: the headers of what is kept do not have it."""
    prepare(rabbit_project)
    async with rabbit_project.run("up", rabbit_project.file, "--only", "handle", env=settings(canary)) as runner:
        await started(runner)
        foreign.publish(rabbit_project.name("work"), b"one")
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await stop(runner)
    (dead,) = foreign.take(rabbit_project.name("work.dead"))
    assert dead.headers["x-runner-error-type"] == "RuntimeError"
    assert not canary.found_in(repr(dead))


async def test_it_is_not_said_to_whom_the_broker_is_closed(rabbit_project: Project, special: Canary) -> None:
    """Connection refused, a wrong password, and a virtual host that is not there: by `up` and by `publish`."""
    prepare(rabbit_project)
    wrong = Canary("guest", special.password, special.port)
    queue = rabbit_project.name("work")
    for url in (special.url_at(free_port()), wrong.url, special.url_at(special.port, vhost="nowhere")):
        for arguments in (("up", rabbit_project.file), ("publish", rabbit_project.file, queue, "x")):
            env = settings(special, url)
            said = await output_of(rabbit_project, env, *arguments, codes=(69,))
            assert ":***@127.0.0.1" in said
            assert not special.found_in(said), said


@pytest.mark.parametrize("way", ["--broker", "RUNNER_BROKER", "--env-file"])
async def test_it_is_not_said_however_it_came(
    rabbit_project: Project, special: Canary, foreign: Foreign, way: str
) -> None:
    """On the command line, where only its own writer put it into a process title, or out of sight of that."""
    prepare(rabbit_project)
    queue = rabbit_project.name("work")
    env = settings(special, "amqp://127.0.0.1:1/")
    arguments: tuple[str | Path, ...] = ()
    match way:
        case "--broker":
            arguments = ("--broker", special.url)
        case "RUNNER_BROKER":
            env["RUNNER_BROKER"] = special.url
        case _:
            del env["BROKER"]
            (rabbit_project.folder / "secrets.env").write_text(f"BROKER='{special.url}'\n")
            arguments = ("--env-file", "secrets.env")
    async with rabbit_project.run("up", rabbit_project.file, *arguments, env=env) as runner:
        await started(runner)
        await runner.wait_for(lambda line: line["event"] == "producer.finished")
        if way != "--broker":
            assert not special.found_in(titles_of(runner.pid))
        await stop(runner)
    said = runner.stdout + runner.stderr
    said += await output_of(rabbit_project, env, "publish", rabbit_project.file, queue, "order", *arguments, codes=(0,))
    assert not special.found_in(said), said
    assert [got.body for got in foreign.take(queue)] == [b"order"]


async def test_a_wrong_command_line_does_not_repeat_it(memory_project: Project, special: Canary) -> None:
    """A URL at the wrong place is wrong usage, and is not quoted."""
    prepare(memory_project)
    for arguments in (
        ("up", memory_project.file, "--broker", special.url + "?x=1"),
        ("up", memory_project.file, "--broker", special.url.replace("amqp", "amqps+tls", 1)),
        ("up", memory_project.file, "--http", special.url),
        ("up", special.url),
        ("up", memory_project.file, "--only", special.url),
        ("validate", special.url),
        ("publish", memory_project.file, special.url, "x"),
        ("graph", memory_project.file, "--format", special.url),
        ("explain", special.url),
    ):
        await silent(special, memory_project, *arguments, codes=(1, 2, 78))


async def test_the_schema_and_the_explanations_know_no_environment(memory_project: Project, special: Canary) -> None:
    """What is the same for everybody."""
    for arguments in (("schema",), ("explain", "plain-password"), ("--help",), ("up", "--help"), ("publish", "--help")):
        await silent(special, memory_project, *arguments)


async def test_a_management_user_sees_who_is_connected_and_nothing_more(
    rabbit_project: Project, special: Canary, rabbitmq: Broker
) -> None:
    """What a connection tells the broker of its client has no password in it."""
    prepare(rabbit_project)
    async with rabbit_project.run("up", rabbit_project.file, env=settings(special)) as runner:
        await started(runner)
        await runner.wait_for(lambda line: line["event"] == "producer.finished")
        told = await asyncio.to_thread(rabbitmq.ctl, "list_connections", "user", "client_properties")
        await stop(runner)
    mine = [line for line in told.splitlines() if line.startswith(special.user)]
    assert len(mine) == 2
    assert not special.found_in("\n".join(mine))


def titles_of(pid: int) -> str:
    """Return the command lines and the names of a process, of its threads and of its children."""
    group = os.getpgid(pid)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                found.append((folder / "cmdline").read_text().replace("\0", " "))
                found += [each.read_text() for each in folder.glob("task/*/comm")]
        except (OSError, UnicodeDecodeError):
            continue  # it has ended, or is not ours
    assert any("runner" in title for title in found)
    return "\n".join(found)
