"""`Publisher` and `AsyncPublisher` on RabbitMQ: other programs see their messages, and the pipeline handles them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from runner import (
    AsyncPublisher,
    BrokerUnavailable,
    CallFailed,
    NoAnswer,
    Publisher,
    PublishFailed,
    TopologyMismatch,
)
from tests.collector import Collector
from tests.foreign import Foreign
from tests.node import Broker
from tests.process import ROOT
from tests.project import Project, started, stop, until

SHOP = """
    version: 1
    queues: {UNIQUE.work: {}}
    events: {UNIQUE.placed: , UNIQUE.unheard: }
    subscribers:
      ship: {from: UNIQUE.placed, handler: work:handle}
      do: {from: UNIQUE.work, handler: work:handle}
"""
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def shop(rabbit_project: Project) -> Iterator[Publisher]:
    """A publisher of a pipeline with a queue and an event, whose runner does not run."""
    rabbit_project.pipeline(SHOP)
    with Publisher(rabbit_project.folder / rabbit_project.file, broker=rabbit_project.place.url) as publisher:
        yield publisher
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("runner-")]


def run_script(project: Project, text: str, env: Mapping[str, str] | None = None) -> str:
    """Run a script in the project's folder, and return its output. UNIQUE, FILE and URL stand for the project's."""
    values = {"UNIQUE": project.unique, "FILE": str(project.file), "URL": str(project.place.url)}
    text = dedent(text)
    for name, value in values.items():
        text = text.replace(name, value)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(project.folder), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=project.folder, env=environment, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def bodies(foreign: Foreign, queue: str) -> list[str]:
    return [got.body.decode() for got in foreign.take(queue)]


def test_what_another_program_sees(shop: Publisher, rabbit_project: Project, foreign: Foreign) -> None:
    """It is in the queue when `publish` returns, as a pipeline publishes it: persistent, with its properties."""
    name = rabbit_project.name("placed")
    shop.publish(name, {"order": 1}, id="o-1", headers={"tenant": "a", "traceparent": TRACEPARENT})
    made = shop.publish(rabbit_project.name("work"), {"order": 2})
    (placed,) = foreign.take(f"{rabbit_project.unique}.ship")
    (work,) = foreign.take(rabbit_project.name("work"))
    assert (placed.body, placed.exchange, placed.routing_key) == (b'{"order":1}', "events", name)
    assert placed.headers == {"tenant": "a", "traceparent": TRACEPARENT}
    properties = placed.properties
    assert (properties.message_id, properties.correlation_id, properties.type) == ("o-1", "o-1", name)
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert properties.app_id == rabbit_project.unique
    assert properties.timestamp is not None
    assert work.properties.message_id == made


async def test_the_pipeline_handles_what_was_published_before_it_ran(shop: Publisher, rabbit_project: Project) -> None:
    rabbit_project.handlers("def handle(payload) -> None: note(payload['order'])")
    for number in range(3):
        shop.publish(rabbit_project.name("placed"), {"order": number})
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.counts() == {"0": 1, "1": 1, "2": 1}


async def test_an_application_asks_and_gets_answers(shop: Publisher, rabbit_project: Project) -> None:
    """From any thread, and on a loop, also with one id; what was wrong is an error that says so."""
    rabbit_project.handlers(
        """
        from runner import Reject

        def handle(order: dict):
            if not order:
                raise Reject("empty")
            return order | {"seen": True}
        """
    )
    name = rabbit_project.name("work")
    asynchronous = AsyncPublisher(rabbit_project.folder / rabbit_project.file, broker=rabbit_project.place.url)
    async with rabbit_project.up() as runner, asynchronous as other:
        await started(runner)
        calls = (asyncio.to_thread(shop.call, name, {"order": number}, timeout=20) for number in range(20))
        assert await asyncio.gather(*calls) == [{"order": number, "seen": True} for number in range(20)]
        assert (
            await asyncio.gather(*(other.call(name, {"id": 5}, id="same", timeout=20) for _ in range(5)))
            == [{"id": 5, "seen": True}] * 5
        )
        with pytest.raises(CallFailed, match=r"gave up \(rejected\): Reject: empty"):
            await other.call(name, {}, timeout=20)
        await stop(runner)
    with pytest.raises(NoAnswer, match="has not answered within 100ms"):
        await asyncio.to_thread(shop.call, name, {"order": 1}, timeout="100ms")
    with pytest.raises(PublishFailed, match="no queue takes a message"):
        await asyncio.to_thread(shop.call, rabbit_project.name("unheard"), 1)


def test_an_event_without_a_queue(shop: Publisher, rabbit_project: Project) -> None:
    with pytest.raises(PublishFailed, match="no queue takes a message") as caught:
        shop.publish(rabbit_project.name("unheard"), {})
    assert caught.value.reason == "unroutable"


def test_a_full_queue(rabbit_project: Project, foreign: Foreign) -> None:
    """It is offered again for the time of the message."""
    rabbit_project.pipeline("version: 1\nqueues: {UNIQUE.work: {max_length: 1, overflow: reject-publish}}")
    path, name = rabbit_project.folder / rabbit_project.file, rabbit_project.name("work")
    with Publisher(path, broker=rabbit_project.place.url, timeout="1s") as shop:
        shop.publish(name, 1)
        assert refusal(shop, name).reason == "refused"
        waiting = threading.Thread(target=shop.publish, args=(name, 3), kwargs={"timeout": 20})
        waiting.start()
        foreign.take(name)
        waiting.join()
    assert "3" in bodies(foreign, name)


def refusal(shop: Publisher, name: str) -> PublishFailed:
    """Return how a message for a full queue fails. A quorum queue may take some more than its length."""
    for number in range(5):
        try:
            shop.publish(name, f"too many {number}")
        except PublishFailed as failure:
            return failure
    raise AssertionError("the queue is not full")


def test_a_url_alone_publishes_to_any_queue(rabbit_project: Project, foreign: Foreign) -> None:
    """It declares nothing, and a queue that does not exist is an error."""
    name = rabbit_project.name("other")
    with Publisher(str(rabbit_project.place.url)) as broker:
        with pytest.raises(PublishFailed, match="no queue takes a message"):
            broker.publish(name, {})
        assert not foreign.has_queue(name)
        foreign.channel.queue_declare(name, durable=True)
        broker.publish(name, {"a": 1})
    (got,) = foreign.take(name)
    assert (got.body, got.properties.app_id) == (b'{"a":1}', "publisher")


def test_a_login_that_the_broker_refuses(rabbit_project: Project) -> None:
    url = str(rabbit_project.place.url).replace("guest:guest", "guest:s3cret")
    with Publisher(url) as broker, pytest.raises(BrokerUnavailable, match="refuses the connection") as caught:
        broker.publish("q", {})
    assert "s3cret" not in str(caught.value)


def test_a_queue_that_differs_from_the_file(rabbit_project: Project, foreign: Foreign) -> None:
    foreign.channel.queue_declare(rabbit_project.name("work"), durable=True)
    rabbit_project.pipeline(SHOP)
    path = rabbit_project.folder / rabbit_project.file
    with Publisher(path, broker=rabbit_project.place.url) as shop, pytest.raises(TopologyMismatch, match="work"):
        shop.publish(rabbit_project.name("work"), {})


def test_topology_verify_declares_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    url = rabbit_project.place.url
    rabbit_project.pipeline(f"version: 1\nbroker: {{url: '{url}', topology: verify}}\nqueues: {{UNIQUE.work: {{}}}}")
    with Publisher(rabbit_project.folder / rabbit_project.file) as shop, pytest.raises(TopologyMismatch):
        shop.publish(rabbit_project.name("work"), {})
    assert not foreign.has_queue(rabbit_project.name("work"))


async def test_an_exclusive_queue_is_left_to_its_consumer(rabbit_project: Project) -> None:
    """A publisher that declared it would lock out the pipeline."""
    rabbit_project.one_queue(
        "def handle(order: int) -> None: note(order)", queue="type: classic, durable: false, exclusive: true"
    )
    path = rabbit_project.folder / rabbit_project.file
    async with AsyncPublisher(path, broker=rabbit_project.place.url) as shop:
        with pytest.raises(PublishFailed, match="no queue takes a message"):
            await shop.publish(rabbit_project.name("work"), 1)
        async with rabbit_project.up() as runner:
            await runner.wait_for(lambda line: line["event"] == "pipeline.started")
            await shop.publish(rabbit_project.name("work"), 2)
            await rabbit_project.ledger.wait_for(1)


def test_threads_share_one_connection(shop: Publisher, rabbit_project: Project, rabbitmq: Broker) -> None:
    """All that they publish is there, and what one thread publishes keeps its order."""
    name = rabbit_project.name("work")

    def publish(letter: str) -> None:
        for number in range(25):
            shop.publish(name, f"{letter}{number}")

    threads = [threading.Thread(target=publish, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Foreign(rabbitmq.url) as other:
        found = [got.body.decode() for got in other.take(name)]
    for letter in "abcd":
        assert [body for body in found if body[0] == letter] == [f"{letter}{number}" for number in range(25)]
    connections = rabbitmq.ctl("list_connections", "client_properties").splitlines()
    assert len([line for line in connections if f"{rabbit_project.unique} (publish)" in line]) == 1


async def test_many_at_once_in_one_loop(rabbit_project: Project, foreign: Foreign) -> None:
    rabbit_project.pipeline(SHOP)
    async with AsyncPublisher(rabbit_project.folder / rabbit_project.file, broker=rabbit_project.place.url) as shop:
        name = rabbit_project.name("work")
        ids = await asyncio.gather(*(shop.publish(name, number, id=f"n-{number}") for number in range(300)))
    assert ids == [f"n-{number}" for number in range(300)]
    assert sorted(bodies(foreign, name), key=int) == [str(number) for number in range(300)]


def test_each_forked_process_has_its_own_connection(rabbit_project: Project, foreign: Foreign) -> None:
    """As gunicorn does it with `--preload`: used before the fork, in each child, and after them in the parent."""
    rabbit_project.pipeline(SHOP)
    script = """
        import os, warnings
        from runner import Publisher
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what is tested here
        shop = Publisher("FILE", broker="URL")
        shop.publish("UNIQUE.work", "before")
        for number in range(3):
            if not os.fork():
                for count in range(10):
                    shop.publish("UNIQUE.work", f"child {number}")
                raise SystemExit(0)
        for number in range(3):
            assert os.wait()[1] == 0
            shop.publish("UNIQUE.work", "parent")
        if not os.fork():
            raise SystemExit(0)  # a child that publishes nothing ends without a word to the parent's connection
        assert os.wait()[1] == 0
        shop.publish("UNIQUE.work", "after")
        """
    assert run_script(rabbit_project, script) == ""
    found = bodies(foreign, rabbit_project.name("work"))
    counts = {text: found.count(text) for text in found}
    assert counts == {"before": 1, "child 0": 10, "child 1": 10, "child 2": 10, "parent": 3, "after": 1}


def test_the_interpreter_ends_while_a_thread_publishes(rabbit_project: Project, foreign: Foreign) -> None:
    """No `close` is needed: what was handed over before the end is confirmed, and no thread holds the end back."""
    rabbit_project.pipeline(SHOP)
    script = """
        import atexit, contextlib, threading
        from runner import Publisher, PublisherClosed
        shop = Publisher("FILE", broker="URL")
        shop.publish("UNIQUE.work", "first")
        begun = threading.Event()
        def publish():
            with contextlib.suppress(PublisherClosed):
                for number in range(10_000):
                    shop.publish("UNIQUE.work", number)
                    begun.set()
        threading.Thread(target=publish, daemon=True).start()
        begun.wait()
        atexit.register(lambda: shop.publish("UNIQUE.work", "at the end"))
        """
    run_script(rabbit_project, script)
    found = bodies(foreign, rabbit_project.name("work"))
    assert "at the end" in found
    numbers = [text for text in found if text.isdecimal()]
    assert numbers == [str(number) for number in range(len(numbers))]


def test_opentelemetrys_current_span_travels_with_the_message(rabbit_project: Project, foreign: Foreign) -> None:
    """Also without `telemetry:`, if the program uses OpenTelemetry."""
    rabbit_project.pipeline(SHOP)
    script = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        from runner import Publisher
        with Publisher("FILE", broker="URL") as shop:
            with trace.get_tracer("web").start_as_current_span("request") as span:
                shop.publish("UNIQUE.work", 1)
                print(format(span.get_span_context().trace_id, "032x"))
        """
    trace_id = run_script(rabbit_project, script).strip()
    (got,) = foreign.take(rabbit_project.name("work"))
    assert got.headers["traceparent"].split("-")[1] == trace_id


def test_a_publication_is_a_span_where_the_file_asks_for_it(rabbit_project: Project, foreign: Foreign) -> None:
    """It is a child of the program's own span, and the collector has it when the interpreter has ended."""
    rabbit_project.pipeline(SHOP + "    telemetry: {traces: otlp}\n")
    script = f"""
        from opentelemetry import context, propagate
        from runner import Publisher
        shop = Publisher("FILE", broker="URL")
        context.attach(propagate.extract({{"traceparent": "{TRACEPARENT}"}}))
        shop.publish("UNIQUE.work", 1)
        """
    with Collector() as collector:
        run_script(rabbit_project, script, collector.env)
        span = collector.one(f"publish {rabbit_project.name('work')}")
    (got,) = foreign.take(rabbit_project.name("work"))
    _, trace_id, parent_id, _ = TRACEPARENT.split("-")
    assert (span.trace_id, span.parent_id) == (trace_id, parent_id)
    assert got.headers["traceparent"].split("-")[1:3] == [trace_id, span.span_id]


def test_an_outbox_is_sent_at_the_next_start(rabbit_project: Project, foreign: Foreign, tmp_path: Path) -> None:
    """A process that could not reach the broker has ended; the next one does not even have to publish."""
    rabbit_project.pipeline(SHOP)
    path, name, outbox = rabbit_project.folder / rabbit_project.file, rabbit_project.name("work"), tmp_path / "outbox"
    with Publisher(path, broker="amqp://guest:guest@127.0.0.1:9", timeout=0, outbox=outbox) as shop:
        for number in range(120):
            shop.publish(name, number, id=f"n-{number}")
    with Publisher(path, broker=rabbit_project.place.url, outbox=outbox) as shop:
        while shop.pending():
            time.sleep(0.05)
    found = foreign.take(name)
    assert [(got.body.decode(), got.properties.message_id) for got in found] == [
        (str(number), f"n-{number}") for number in range(120)
    ]


async def test_an_outbox_holds_back_only_what_goes_to_a_closed_queue(
    rabbit_project: Project, foreign: Foreign, tmp_path: Path
) -> None:
    """A queue that is full does not stop the messages for others, and loses none of its own."""
    rabbit_project.pipeline(
        "version: 1\nqueues: {UNIQUE.work: {}, UNIQUE.full: {max_length: 1, overflow: reject-publish}}"
    )
    path, url = rabbit_project.folder / rabbit_project.file, rabbit_project.place.url
    full, work = rabbit_project.name("full"), rabbit_project.name("work")
    async with AsyncPublisher(path, broker=url, timeout="200ms", outbox=tmp_path / "outbox") as shop:
        for number in range(6):
            await shop.publish(full, number)
        await shop.publish(work, "other")
        await asyncio.to_thread(until_there, foreign, work)
        assert await shop.pending() >= 3
        found: list[str] = []
        while await shop.pending() or len(found) < 6:
            found += await asyncio.to_thread(bodies, foreign, full)
    assert found == ["0", "1", "2", "3", "4", "5"]


def until_there(foreign: Foreign, queue: str) -> None:
    asyncio.run(until(lambda: foreign.has_queue(queue) and foreign.count(queue) == 1, f"a message in {queue}"))
