"""What is settled, what is only begun, and what is deleted: each has lost, doubled or reordered messages once."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika
import pytest

from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq.management_api import ManagementApi
from tests.faults.load import both_lost, check_quiet, is_back, losses
from tests.faults.test_unlisted import orders, send, through
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker
from tests.project import Project, lines, started, stop, until
from tests.proxy import Proxy


class Publishers:
    """Programs that publish to a queue by its name, and note what the broker has confirmed."""

    def __init__(self, url: str, queue: str, pause_s: float) -> None:
        self.confirmed: list[str] = []
        self.refused = 0
        self._url, self._queue, self._pause_s = url, queue, pause_s
        self._stopped = threading.Event()

    @contextmanager
    def at_work(self, count: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._publish, args=(name,)) for name in "abcdef"[:count]]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _publish(self, name: str) -> None:
        number = 0
        while not self._stopped.is_set():
            try:
                with Foreign(self._url) as foreign:
                    channel = foreign.channel
                    channel.confirm_delivery()
                    while not self._stopped.wait(self._pause_s):
                        number += 1
                        self._one(channel, f"{name}-{number}")
            except pika.exceptions.AMQPError:  # RabbitMQ 3.10 closes who publishes while a queue is deleted
                self._stopped.wait(0.05)

    def _one(self, channel: Any, body: str) -> None:
        persistent = pika.BasicProperties(delivery_mode=2)
        try:
            channel.basic_publish("", self._queue, body.encode(), persistent, mandatory=True)
        except (pika.exceptions.NackError, pika.exceptions.UnroutableError):
            self.refused += 1
        else:
            self.confirmed.append(body)


RECREATED = """
    version: 1
    queues: {UNIQUE.work: {LIMIT, dead_letter: false}}
"""


async def apply(project: Project, *arguments: str, code: int) -> str:
    async with project.command("apply", *arguments) as runner:
        assert await runner.wait(120) == code, runner.stderr + runner.stdout
    return runner.stderr


@pytest.mark.timeout(200)
@pytest.mark.fault("F43", "a quorum queue is recreated again and again while three programs publish to it by its name")
async def test_a_quorum_queue_that_is_recreated_under_load(
    managed: Broker, project_with_api: Project, fault: Fault
) -> None:
    """They are refused for the time, and every message that was confirmed is there."""
    project, work = project_with_api, project_with_api.name("work")
    project.pipeline(RECREATED.replace("LIMIT", "delivery_limit: 7"))
    await apply(project, code=0)
    publishers = Publishers(managed.url, work, 0.005)
    with publishers.at_work(3):
        for limit in (9, 7):
            project.pipeline(RECREATED.replace("LIMIT", f"delivery_limit: {limit}"))
            await apply(project, "--recreate", work, code=0)
    with Foreign(managed.url) as foreign:
        found = Counter(got.body.decode() for got in foreign.take(work))
        check_empty(foreign, f"{work}.recreating")
    assert publishers.refused
    assert work not in managed.ctl("list_policies")
    fault.judge(publishers.confirmed, found, twice=0)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.fault("F43", "a classic queue is to be recreated while a program publishes to it by its name")
async def test_a_classic_queue_is_not_recreated_while_messages_keep_coming(
    managed: Broker, project_with_api: Project, fault: Fault
) -> None:
    """Nobody can be shut out of it: it is refused, and done as soon as nothing comes any more."""
    project, work = project_with_api, project_with_api.name("work")
    project.pipeline(RECREATED.replace("LIMIT", "type: classic, max_length: 70000"))
    await apply(project, code=0)
    project.pipeline(RECREATED.replace("LIMIT", "type: classic, max_length: 90000"))
    publishers = Publishers(managed.url, work, 0.05)
    with publishers.at_work(1):
        refusal = await apply(project, "--recreate", work, code=1)
        assert f'messages keep coming into queue "{work}"' in refusal
    await apply(project, "--recreate", work, code=0)
    with Foreign(managed.url) as foreign:
        found = Counter(got.body.decode() for got in foreign.take(work))
    fault.judge(publishers.confirmed, found, twice=0)


@pytest.mark.timeout(120)
@pytest.mark.fault("F43", "killed while the queue is closed to publishers")
async def test_a_recreation_that_is_killed_while_the_queue_is_closed(
    managed: Broker, project_with_api: Project, fault: Fault
) -> None:
    """The next run opens it, and what has kept it closed is not taken for a message."""
    project, work = project_with_api, project_with_api.name("work")
    project.pipeline(RECREATED.replace("LIMIT", "delivery_limit: 7"))
    await apply(project, code=0)
    api, _ = await ManagementApi.find(BrokerSettings(urls=(managed.url,)), managed.management_url)
    assert api is not None
    names = orders(300)
    with Foreign(managed.url) as foreign:
        send(foreign, work, names)
    project.pipeline(RECREATED.replace("LIMIT", "delivery_limit: 9"))
    async with project.command("apply", "--recreate", work) as runner:
        while f"runner recreates {work}" not in [policy["name"] for policy in await api.policies()]:
            assert not runner.has_ended, runner.stderr
        runner.signal(signal.SIGKILL)
        await runner.wait()
    await apply(project, "--recreate", work, code=0)
    with Foreign(managed.url) as foreign:
        found = Counter(got.body.decode() for got in foreign.take(work))
    assert work not in managed.ctl("list_policies")
    fault.judge(names, found, twice=100)


MOVED_BACK = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    queues: {UNIQUE.work: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle, retry: none, concurrency: 20}
"""
MOVED_BACK_HANDLERS = """
    import asyncio, os

    async def handle(order: str) -> None:
        if not os.path.exists("mended"):
            raise ValueError("not yet")
        if os.path.exists("go"):
            note(order)
            return
        open("begun", "a").write(order + "\\n")
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        raise ConnectionError("the same outage")
"""


@pytest.mark.timeout(120)
@pytest.mark.fault("F44", "dead letters are moved back as they are, and the connections are lost before and after")
async def test_dead_letters_that_are_moved_back_between_two_losses(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """That its dead letter was published does not make a message a duplicate, and no line says so of a lost one.

    Their one attempt has failed while the connection was lost: when they come again they are dead letters, uncalled.
    """
    through(proxy, rabbit_project)
    rabbit_project.write(MOVED_BACK, MOVED_BACK_HANDLERS)
    work, names = rabbit_project.name("work"), orders(10)
    begun = rabbit_project.folder / "begun"
    async with rabbit_project.running() as runner:
        send(foreign, work, names)
        await until(lambda: foreign.count(f"{work}.dead") == 10, "all are dead letters")
        proxy.cut()
        await both_lost(runner, Counter())
        await until(lambda: is_back(runner, subscribers=1), "everything is back")
        (rabbit_project.folder / "mended").touch()
        for got in foreign.take(f"{work}.dead"):
            foreign.channel.basic_publish("", work, got.body, got.properties, mandatory=True)
        await until(lambda: begun.exists() and len(set(begun.read_text().split())) == 10, "all are at work")
        before = losses(runner)
        proxy.cut()
        await both_lost(runner, before)
        (rabbit_project.folder / "go").touch()
        await fault.recovery(lambda: foreign.count(f"{work}.dead") >= 10, "all are dead letters again")
    assert len(lines(runner, "message.settle_lost")) >= 10
    # What was acknowledged just before a loss may be there twice, and the last of these may wait to be handled.
    kept = Counter(got.body.decode() for queue in (work, f"{work}.dead") for got in foreign.take(queue))
    fault.judge(names, rabbit_project.ledger.counts() + kept, twice=20)


KEYED = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    shutdown: {grace: 2s}
    queues: {UNIQUE.work: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle, order_by: key, retry: {attempts: 5, delay: 1s, backoff: fixed}}
"""
KEYED_HANDLERS = """
    import asyncio, os

    async def handle(order: dict[str, str]) -> None:
        name = order["name"]
        open("begun", "a").write(f"{os.environ['WHO']} {name}\\n")
        while os.environ["WHO"] == "first" and not os.path.exists("go"):
            await asyncio.sleep(0.02)
        if os.environ["WHO"] == "first":
            raise ValueError("not here")
        note(name)
"""


@pytest.mark.timeout(120)
@pytest.mark.fault("F45", "order_by: a process loses its connection, and another one finishes the key")
async def test_nothing_of_a_key_is_begun_after_another_process_has_finished_it(
    rabbit_project: Project,
    foreign: Foreign,
    proxy: Proxy,
    fault: Fault,
) -> None:
    """Neither what waited behind the key nor the retry of what was in hand."""
    direct = rabbit_project.place
    rabbit_project.write(KEYED, KEYED_HANDLERS)
    work, names = rabbit_project.name("work"), orders(20)
    begun = rabbit_project.folder / "begun"
    through(proxy, rabbit_project)
    async with rabbit_project.up(env={"WHO": "first"}) as first:
        await started(first)
        for name in names:
            body = f'{{"key": "a", "name": "{name}"}}'.encode()
            foreign.publish_confirmed(work, body, message_id=name, content_type="application/json")
        await until(begun.exists, "the first message is at work")
        rabbit_project.place = direct
        async with rabbit_project.running(env={"WHO": "second"}):
            proxy.blackhole()
            proxy.cut()
            await until(lambda: len(rabbit_project.ledger.counts()) == 20, "the second has finished the key")
            await until(lambda: losses(first)["consume"], "the first knows that its connection is lost")
            (rabbit_project.folder / "go").touch()
            await until(lambda: lines(first, "message.settle_lost"), "the first has ended what it had in hand")
            proxy.pass_through()
            await fault.recovery(lambda: is_back(first, subscribers=1), "the first is back")
            await stop(first)
    assert [line for line in begun.read_text().splitlines() if line.startswith("first")] == ["first order-0"]
    fault.judge(names, rabbit_project.ledger.counts(), twice=0)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.fault("F46", "what may end processes comes while handlers of 70 s are at work")
async def test_a_suspect_comes_while_long_handlers_are_at_work(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """It waits for them, however long they take: each is called once."""
    rabbit_project.pipeline(MOVED_BACK)
    rabbit_project.handlers(
        """
        import asyncio

        async def handle(order: str) -> None:
            note(order)
            await asyncio.sleep(0 if order == "suspect" else 70)
        """
    )
    work, names = rabbit_project.name("work"), orders(3)
    async with rabbit_project.up() as runner:
        await started(runner)
        await stop(runner)
    send(foreign, work, ["suspect"])
    for _ in range(3):  # three of its deliveries end without being settled
        with Foreign(str(rabbit_project.place.url)) as crashing:
            await until(partial(lambda crashing: crashing.channel.basic_get(work)[0], crashing), "it is delivered")
    channel = foreign.channel
    got = channel.basic_get(work)[0]  # held, until the others are at work
    send(foreign, work, names)
    async with rabbit_project.running() as runner:
        await until(lambda: len(rabbit_project.ledger.counts()) == 3, "all are at work")
        channel.basic_nack(got.delivery_tag, requeue=True)
        await until(lambda: lines(runner, "consumer.careful"), "the suspect has come")
        await fault.recovery(lambda: "suspect" in rabbit_project.ledger.counts(), "the suspect is handled", 120)
    check_quiet(runner)
    fault.judge([*names, "suspect"], rabbit_project.ledger.counts(), twice=0)


CANCELLED = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    queues: {UNIQUE.work: {}, UNIQUE.next: {}, UNIQUE.made: {}}
    producers:
      make: {handler: work:make, to: UNIQUE.made}
    subscribers:
      work:
        {from: UNIQUE.work, handler: work:handle, to: UNIQUE.next, concurrency: 2, retry: {attempts: 3, delay: 100ms}}
      next: {from: UNIQUE.next, handler: work:take}
      made: {from: UNIQUE.made, handler: work:take}
"""
CANCELLED_HANDLERS = """
    import asyncio

    def task():
        return asyncio.current_task()

    async def make():
        for number in range(3):
            task().cancel()
            yield f"made-{number}"

    async def handle(order: str) -> str:
        if order.startswith("never"):
            task().cancel()
            await asyncio.sleep(60)
        elif order.startswith("done"):
            task().cancel()
        elif order.startswith("later"):
            asyncio.get_running_loop().call_later(0.05, task().cancel)
        else:
            await asyncio.sleep(0.03)
        return order

    async def take(order: str) -> None:
        note(order)
"""


@pytest.mark.fault("F47", "handlers cancel the task that they run in: at once, at their end, or when they are gone")
async def test_handlers_that_cancel_the_task_that_they_run_in(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """That is their failure, or that of the message which is at work by then: the subscriber goes on."""
    rabbit_project.write(CANCELLED, CANCELLED_HANDLERS)
    work = rabbit_project.name("work")
    never, rest = orders(6, "never"), [*orders(6, "done"), *orders(2, "later"), *orders(20, "plain")]
    await rabbit_project.do("apply")
    send(foreign, work, [*never, *rest])
    expected = {*rest, *orders(3, "made")}
    runner = await rabbit_project.up_until_idle()  # it ends only if no message stays in hand for ever
    assert {line["error_type"] for line in lines(runner, "message.dead_lettered")} == {"CancelledError"}
    assert {got.body.decode() for got in foreign.take(f"{work}.dead")} == set(never)
    fault.judge(expected, rabbit_project.ledger.counts(), twice=10)
    check_empty(foreign, work, rabbit_project.name("next"))


STUCK_HANDLERS = """
    import asyncio, os

    async def handle(order: dict[str, str]) -> None:
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        note(order["name"])
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.fault("F48", "order_by: connections are lost eight times while the same messages are in hand")
async def test_messages_that_come_back_again_and_again_keep_their_order(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """They are not taken alone for that: from a quorum queue, those behind them would overtake them."""
    through(proxy, rabbit_project)
    rabbit_project.write(KEYED, STUCK_HANDLERS)
    work, names = rabbit_project.name("work"), orders(20)
    async with rabbit_project.running() as runner:
        for name in names:
            body = f'{{"key": "{int(name[6:]) % 2}", "name": "{name}"}}'.encode()
            foreign.publish_confirmed(work, body, message_id=name, content_type="application/json")
        for _ in range(8):
            before = losses(runner)
            proxy.cut()
            await both_lost(runner, before)
            await until(lambda: is_back(runner, subscribers=1), "everything is back", 60)
            await until(lambda: foreign.count(work) < 20, "the first of them are in hand again")
        (rabbit_project.folder / "go").touch()
        await fault.recovery(lambda: rabbit_project.ledger.counts().keys() == set(names), "all are handled")
    first = list(dict.fromkeys(rabbit_project.ledger.payloads()))
    assert [name for name in first if int(name[6:]) % 2] == names[1::2]
    assert [name for name in first if not int(name[6:]) % 2] == names[0::2]
    assert not lines(runner, "consumer.careful")
    fault.judge(names, rabbit_project.ledger.counts(), twice=0)
