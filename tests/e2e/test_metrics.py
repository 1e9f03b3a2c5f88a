"""/metrics of a real process: beside what its handlers did, its log and its last line say."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import time

import pytest

from runner.metrics import METRICS
from runner.release import version
from tests.e2e.test_workers import all_run
from tests.foreign import Foreign
from tests.node import Broker, Node, free_port
from tests.project import Place, Project, lines, stop, until
from tests.proxy import Proxy
from tests.scraping import Scrape, fetch

PIPELINE = """
    version: 1
    release: r-7
    telemetry: {http: "127.0.0.1:PORT"}
    queues:
      UNIQUE.work: {}
      UNIQUE.done: {}
    producers:
      make: {handler: work:make, to: UNIQUE.work}
      tick: {handler: work:tick, to: UNIQUE.done, every: 1h}
    subscribers:
      check:
        from: UNIQUE.work
        handler: work:check
        to: UNIQUE.done
        concurrency: 4
        retry: {attempts: 2, backoff: fixed, delay: 50ms}
      count: {from: UNIQUE.done, handler: work:count, concurrency: 2}
"""
HANDLERS = """
    import asyncio, os

    def make():
        yield from range(20)

    def tick():
        return -1

    async def check(number: int) -> int | None:
        note(f"check-{number}")
        if number % 10 == 3:
            raise ValueError("odd one")
        if number % 10 == 4:
            raise KeyError(number)
        return number if number % 2 else None

    async def count(number: int) -> None:
        note(f"count-{number}")
"""


def prepare(project: Project, pipeline: str = PIPELINE, handlers: str = HANDLERS) -> int:
    port = free_port()
    project.write(pipeline.replace("PORT", str(port)), handlers)
    return port


async def scraped(port: int, name: str, value: float, **labels: str) -> Scrape:
    """Scrape until a series has this value, and return that scrape."""
    await until(lambda: Scrape(port)(name, **labels) == value, f"{name}{labels} == {value}", timeout=40)
    return Scrape(port)


async def test_metrics_agree_with_what_handlers_did_and_with_the_log(project: Project) -> None:
    port = prepare(project)
    async with project.running() as runner:
        await scraped(port, "runner_messages_total", 4, outcome="dead_lettered")
        # Each odd number but 3 and 13, and the one of the clock, has come through.
        scrape = await scraped(port, "runner_messages_total", 9, subscriber="count", outcome="handled")
    checked = project.ledger.counts()
    assert sum(number for name, number in checked.items() if name.startswith("check")) == 16 + 2 * 4
    for outcome, expected in {"handled": 16, "retried": 4, "dead_lettered": 4, "released": 0, "duplicate": 0}.items():
        labels = {"pipeline": project.unique, "subscriber": "check", "queue": project.name("work"), "outcome": outcome}
        assert scrape("runner_messages_total", **labels) == expected, outcome
    assert scrape("runner_handler_errors_total", subscriber="check", error_type="ValueError") == 4
    assert scrape("runner_handler_errors_total", subscriber="check", error_type="KeyError") == 4
    assert scrape("runner_handler_seconds_count", subscriber="check") == 24
    assert scrape("runner_queue_wait_seconds_count", subscriber="check") == 20, "of first attempts alone"
    work, done = project.name("work"), project.name("done")
    assert scrape("runner_published_total", producer="make", to=work, outcome="confirmed") == 20
    assert scrape("runner_published_total", subscriber="check", to=done, outcome="confirmed") == 8
    assert scrape("runner_publish_seconds_count", subscriber="check", to=done, outcome="confirmed") == 8
    assert scrape("runner_published_total", subscriber="check", to=done, outcome="unroutable") == 0
    (stopped,) = lines(runner, "pipeline.stopped")
    for outcome in ("handled", "retried", "dead_lettered", "released"):
        assert scrape("runner_messages_total", outcome=outcome) == stopped[outcome], outcome
        assert len(lines(runner, EVENTS[outcome])) == stopped[outcome]
    published = [scrape("runner_published_total", producer=name, outcome="confirmed") for name in ("make", "tick")]
    assert sum(each or 0 for each in published) == stopped["published"]


EVENTS = {
    "handled": "message.handled",
    "retried": "message.retry",
    "dead_lettered": "message.dead_lettered",
    "released": "message.released",
}


async def test_gauges_say_what_goes_on_now(project: Project) -> None:
    port = prepare(
        project,
        """
        version: 1
        release: r-7
        telemetry: {http: "127.0.0.1:PORT"}
        queues: {UNIQUE.work: {}, UNIQUE.later: }
        delays: UNIQUE.later
        producers:
          make: {handler: work:make, to: UNIQUE.work}
        subscribers:
          wait: {from: UNIQUE.work, handler: work:wait, concurrency: 3}
        """,
        """
        import asyncio, os

        def make():
            yield from range(10)

        async def wait(number: int) -> None:
            note(number)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        """,
    )
    scheduled = 0
    if not project.place.is_memory:
        await project.do("publish", project.name("later"), "1", "--delay", "1h")
        scheduled = 1
    before = time.time()
    async with project.running():
        await project.ledger.wait_for(3)
        await scraped(port, "runner_scheduled", scheduled, pipeline=project.unique)
        scrape = await scraped(port, "runner_leader", 1, pipeline=project.unique)
        assert scrape("runner_messages_in_flight", subscriber="wait") == 3
        assert scrape("runner_concurrency", subscriber="wait") == 3
        assert scrape("runner_paused", subscriber="wait") == 0
        assert scrape("runner_broker_connected") == 1
        assert scrape("runner_broker_blocked") == 0
        info = {"version": version(), "release": "r-7", "pipeline": project.unique}
        assert scrape("runner_info", **info) == 1
        assert before <= (scrape("process_start_time_seconds") or 0) + 2
        at_least = Scrape(port)("runner_queue_oldest_seconds", queue=project.name("work"))
        await until(
            lambda: (Scrape(port)("runner_queue_oldest_seconds") or 0) > (at_least or 0) + 1, "the oldest gets older"
        )
        (project.folder / "go").touch()
        last_run = "runner_producer_last_run_timestamp_seconds"
        await scraped(port, "runner_messages_in_flight", 0)
        assert before <= (Scrape(port)(last_run, producer="make") or 0) <= time.time()
        assert Scrape(port)("runner_producer_failures_total", producer="make") == 0


async def test_every_metric_is_there_from_the_start_with_its_help_and_type(rabbit_project: Project) -> None:
    """Also while there is no broker: dashboards and alerts must not depend on something having happened."""
    port, nobody = prepare(rabbit_project), free_port()
    url = f"amqp://guest:guest@127.0.0.1:{nobody}"
    rabbit_project.place = Place.at(url)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "broker.unreachable")
        scrape = Scrape(port)
        for metric in METRICS:
            assert f"# TYPE {metric.name} {metric.kind}\n" in scrape.text
        assert scrape("runner_broker_connected") == 0
        assert scrape("runner_concurrency", subscriber="check") == 0
        assert scrape("runner_messages_total", subscriber="check", outcome="dead_lettered") == 0
        assert scrape("runner_leader", pipeline=rabbit_project.unique) == 0
        await stop(runner)


async def test_the_connection_is_followed(rabbit_project: Project, rabbitmq: Broker) -> None:
    port = prepare(rabbit_project)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        async with rabbit_project.running() as runner:
            await scraped(port, "runner_concurrency", 4, subscriber="check")
            assert Scrape(port)("runner_broker_reconnects_total") == 0
            proxy.blackhole()
            proxy.cut()
            scrape = await scraped(port, "runner_broker_connected", 0)
            assert scrape("runner_concurrency", subscriber="check") == 0
            proxy.pass_through()
            proxy.cut()
            await scraped(port, "runner_broker_connected", 1)
            await scraped(port, "runner_concurrency", 4, subscriber="check")

            def again() -> int:
                return sum(line["event"] == "broker.connected" and "role" in line for line in runner.logs)

            # The process counts before it has written the line.
            await until(lambda: Scrape(port)("runner_broker_reconnects_total") == again() > 0, "each is counted once")


async def test_a_scrape_is_answered_while_the_process_drains(project: Project) -> None:
    port = prepare(
        project,
        """
        version: 1
        telemetry: {http: "127.0.0.1:PORT"}
        queues: {UNIQUE.work: {}}
        producers: {make: {handler: work:make, to: UNIQUE.work}}
        subscribers: {wait: {from: UNIQUE.work, handler: work:wait}}
        """,
        """
        import asyncio, os

        def make():
            return 1

        async def wait(number: int) -> None:
            note(number)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        """,
    )
    async with project.up() as runner:
        await project.ledger.wait_for(1)
        runner.signal(signal.SIGTERM)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        assert Scrape(port)("runner_messages_in_flight", subscriber="wait") == 1
        (project.folder / "go").touch()
        assert await runner.wait() == 0


MANY = 1000


async def test_a_thousand_subscribers_fit_into_a_scrape(memory_project: Project) -> None:
    """Under a megabyte, and a fraction of it on the wire: Prometheus asks for gzip."""
    port = free_port()
    queues = "".join(f"  q{number}: {{}}\n" for number in range(MANY))
    subscribers = "".join(f"  s{number}: {{from: q{number}, handler: work:handle}}\n" for number in range(MANY))
    text = f'version: 1\ntelemetry: {{http: "127.0.0.1:{port}"}}\nqueues:\n{queues}subscribers:\n{subscribers}'
    (memory_project.folder / memory_project.file).write_text(text)
    memory_project.handlers("async def handle(order: str) -> None: pass")
    async with memory_project.running():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(body) < 200_000
        plain = gzip.decompress(body).decode()
        assert plain.count("\nrunner_concurrency{") == MANY
        assert len(plain) < 1_000_000


WORK = """
    version: 1
    telemetry: {http: "127.0.0.1:PORT"}
    queues: {UNIQUE.work: {}}
    subscribers: {work: {from: UNIQUE.work, handler: work:handle, concurrency: 2, prefetch: 2}}
"""
HANDLE = """
    import asyncio

    async def handle(order: str) -> None:
        note(order)
        await asyncio.sleep(0.01)
"""


async def test_workers_are_counted_together_and_never_less(rabbit_project: Project, foreign: Foreign) -> None:
    """Workers that are killed or restarted take nothing from the sums, also the one that answers."""
    port = prepare(rabbit_project, WORK, HANDLE)
    work, ledger = rabbit_project.name("work"), rabbit_project.ledger
    async with rabbit_project.up("--workers", "2") as runner:
        before = await all_run(runner, 2)
        foreign.publish(work, *(f"a-{number}".encode() for number in range(100)))
        scrape = await scraped(port, "runner_messages_total", 100, outcome="handled")
        assert {entry.pid for entry in ledger.entries()} == set(before.values())
        assert scrape("runner_concurrency", subscriber="work") == 4
        for number in (2, 1):
            os.kill(before[number], signal.SIGKILL)
            await until(lambda pid=before[number]: lines(runner, "worker.exited", pid=pid), "it has ended")
            await all_run(runner, 2)
            await until(lambda: answers(port), "one answers again")
            assert Scrape(port)("runner_messages_total", outcome="handled") == 100
        cpu = Scrape(port)("process_cpu_seconds_total") or 0
        assert cpu >= (scrape("process_cpu_seconds_total") or 0), "of those that have ended, too"
        foreign.publish(work, *(f"b-{number}".encode() for number in range(50)))
        await scraped(port, "runner_messages_total", 150, outcome="handled")
        after = await all_run(runner, 2)
        os.kill(after[2], signal.SIGTERM)
        await runner.wait_for(lambda line: line["event"] == "worker.exited" and line["pid"] == after[2])
        await all_run(runner, 2)
        assert Scrape(port)("runner_messages_total", outcome="handled") == 150
        await stop(runner)


def answers(port: int) -> bool:
    try:
        fetch(port)
    except (OSError, http.client.HTTPException):
        return False
    return True


async def test_a_blocked_worker_does_not_hide_the_others(rabbit_project: Project, foreign: Foreign) -> None:
    """Its counts are read past its event loop."""
    blocking = """
        import os, time

        async def handle(order: str) -> None:
            note(order)
            while order == "block" and not os.path.exists("go"):
                time.sleep(0.01)
    """
    port = prepare(rabbit_project, WORK, blocking)
    work, ledger = rabbit_project.name("work"), rabbit_project.ledger
    async with rabbit_project.up("--workers", "2") as runner:
        running = await all_run(runner, 2)
        while True:  # until it is the second one that blocks: the first one answers
            foreign.publish(work, b"block")
            blocked = (await ledger.wait_for(1))[-1].pid
            if blocked == running[2]:
                break
            (rabbit_project.folder / "go").touch()
            await scraped(port, "runner_messages_in_flight", 0)
            (rabbit_project.folder / "go").unlink()
            ledger.path.unlink()
        began = time.monotonic()
        assert Scrape(port)("runner_messages_in_flight", subscriber="work") == 1
        assert time.monotonic() - began < 5
        (rabbit_project.folder / "go").touch()
        await stop(runner)


async def test_two_runners_on_one_port(memory_project: Project) -> None:
    """The second one says so at once, and the first one goes on."""
    port = prepare(memory_project, WORK, HANDLE)
    async with memory_project.running():
        async with memory_project.up() as second:
            assert await second.wait() == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in second.stderr
        assert Scrape(port)("runner_concurrency", subscriber="work") == 2


async def test_a_consumer_that_the_broker_ends_is_counted(rabbit_project: Project, foreign: Foreign) -> None:
    """As often as the log says so."""
    port = prepare(rabbit_project, WORK, HANDLE)
    async with rabbit_project.running() as runner:
        assert Scrape(port)("runner_consumer_lost_total", subscriber="work") == 0
        foreign.channel.queue_delete(rabbit_project.name("work"))
        await runner.wait_for(lambda line: line["event"] == "consumer.resumed")
        await scraped(port, "runner_concurrency", 2, subscriber="work")
        assert Scrape(port)("runner_consumer_lost_total", subscriber="work") == len(lines(runner, "consumer.lost")) > 0


@pytest.mark.slow
async def test_a_broker_that_blocks_is_seen(own_node: Node, own_project: Project) -> None:
    """It is out of memory for as long as the test says so; a scrape is answered meanwhile."""
    port = prepare(
        own_project,
        """
        version: 1
        telemetry: {http: "127.0.0.1:PORT"}
        queues: {UNIQUE.work: {}}
        producers: {tick: {handler: work:tick, to: UNIQUE.work, every: 100ms}}
        subscribers: {work: {from: UNIQUE.work, handler: work:handle}}
        """,
        "def tick(): return 1\nasync def handle(number: int) -> None: note(number)",
    )
    async with own_project.running():
        assert Scrape(port)("runner_broker_blocked") == 0
        own_node.ctl("set_vm_memory_high_watermark", "absolute", "1")
        scrape = await scraped(port, "runner_broker_blocked", 1)
        assert scrape("runner_broker_connected") == 1
        own_node.ctl("set_vm_memory_high_watermark", "0.6")
        await scraped(port, "runner_broker_blocked", 0)
