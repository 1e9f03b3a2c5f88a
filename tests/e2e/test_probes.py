"""What /healthz and /readyz answer, at each stage of a process's life."""

from __future__ import annotations

import http.client
import json
import signal
from typing import Any

from runner.release import version
from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.project import Place, Project, started, stop, until
from tests.proxy import Proxy

PIPELINE = """
    version: 1
    telemetry: {http: "127.0.0.1:PORT"}
    queues: {UNIQUE.work: {}}
    subscribers: {work: {from: UNIQUE.work, handler: work:handle}}
"""
HANDLERS = """
    import asyncio, os

    async def handle(order: str) -> None:
        note(order)
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
"""


def ask(port: int, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the answer; status 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except ConnectionRefusedError:
        return 0, {}
    finally:
        connection.close()


def prepare(project: Project) -> int:
    port = free_port()
    project.write(PIPELINE.replace("PORT", str(port)), HANDLERS)
    return port


async def test_a_process_is_ready_when_its_subscribers_get_messages(project: Project) -> None:
    """Alive from the start, ready while running."""
    port = prepare(project)
    async with project.running():
        assert ask(port, "/healthz") == (200, {"status": "alive", "version": version()})
        assert ask(port, "/readyz") == (200, {"ready": True, "trouble": []})
    assert ask(port, "/healthz") == (0, {})


async def test_up_http_wins_over_the_file(project: Project) -> None:
    other, port = prepare(project), free_port()
    async with project.running("--http", f"127.0.0.1:{port}"):
        assert ask(port, "/readyz")[0] == 200
        assert ask(other, "/readyz")[0] == 0


async def test_web_pages_cannot_ask_through_their_visitors_browser(memory_project: Project) -> None:
    """A name that resolves to this machine, or a page from elsewhere: neither is answered on a loopback address."""
    port = prepare(memory_project)
    async with memory_project.running():
        assert ask(port, "/readyz", Host="evil.example")[0] == 403
        assert ask(port, "/readyz", Origin="https://evil.example")[0] == 403
        assert ask(port, "/readyz", Host=f"localhost:{port}", Origin="http://localhost:3000")[0] == 200


async def test_a_process_is_alive_but_not_ready_while_it_waits_for_its_broker(rabbit_project: Project) -> None:
    port, nobody = prepare(rabbit_project), free_port()
    url = f"amqp://guest:guest@127.0.0.1:{nobody}"
    rabbit_project.place = Place.at(url)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
        assert ask(port, "/healthz")[0] == 200
        assert ask(port, "/readyz") == (503, {"ready": False, "trouble": ["starting"]})
        await stop(runner)


async def test_readiness_follows_the_connection(rabbit_project: Project, rabbitmq: Broker) -> None:
    port = prepare(rabbit_project)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running():
            await until(lambda: ask(port, "/readyz")[0] == 200, "ready")
            proxy.blackhole()
            proxy.cut()
            await until(lambda: ask(port, "/readyz")[0] == 503, "not ready")
            assert ask(port, "/readyz")[1] == {
                "ready": False,
                "trouble": [
                    "no connection to the broker to publish",
                    "no connection to the broker to consume",
                    f'nothing comes from queue "{rabbit_project.name("work")}"',
                ],
            }
            assert ask(port, "/healthz")[0] == 200
            proxy.pass_through()
            proxy.cut()
            await until(lambda: ask(port, "/readyz")[0] == 200, "ready again", timeout=60)


async def test_a_process_that_drains_is_not_ready(rabbit_project: Project, foreign: Foreign) -> None:
    port = prepare(rabbit_project)
    async with rabbit_project.up() as runner:
        await started(runner)
        foreign.publish(rabbit_project.name("work"), b"one")
        await rabbit_project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        assert ask(port, "/readyz") == (503, {"ready": False, "trouble": ["stopping"]})
        assert ask(port, "/healthz")[0] == 200
        (rabbit_project.folder / "go").touch()
        assert await runner.wait() == 0
