"""Ways to lose a message that no list names: what was left when each fault of the matrix had its test."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.faults.load import PREFETCH, UNCONFIRMED, Load, both_lost, check_quiet, is_back, losses
from tests.faults.test_chaos import SEEDS, Chaos
from tests.faults.verdict import Fault, check_empty
from tests.foreign import Foreign
from tests.node import Broker, Node
from tests.process import RunnerProcess
from tests.project import Place, Project, started, stop, until
from tests.proxy import Proxy


def through(proxy: Proxy, project: Project) -> None:
    """Let the project reach its broker by the proxy only."""
    project.place = Place.at(proxy.url)


def orders(count: int, word: str = "order") -> list[str]:
    return [f"{word}-{number}" for number in range(count)]


def send(foreign: Foreign, queue: str, names: list[str], **properties: str) -> None:
    """Publish as another program does: confirmed, each with an id of its own."""
    for name in names:
        foreign.publish_confirmed(queue, name.encode(), message_id=name, **properties)


def attempts(project: Project, least: int) -> Counter[str]:
    """Return how often each message was handled at that attempt or a later one."""
    return Counter(entry.payload for entry in project.ledger.entries() if entry.attempt >= least)


def has_ended(runner: RunnerProcess) -> bool:
    """Whether the process is dead, though its children may live and keep its outputs open."""
    try:
        return not Path(f"/proc/{runner.pid}/cmdline").read_bytes()
    except OSError:
        return True


RETRIED = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/'}
    defaults: {subscriber: {retry: {attempts: 4, delay: 300ms, backoff: fixed}}}
    queues: {UNIQUE.work: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle, concurrency: 20}
"""


@pytest.mark.fault("F31", "a second attempt is in hand when the connection is lost, and fails")
async def test_a_retry_that_is_in_hand_when_the_connection_is_lost(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """That its first attempt was acknowledged says nothing of the second one, which carries the same id and body."""
    through(proxy, rabbit_project)
    rabbit_project.pipeline(RETRIED)
    rabbit_project.handlers(
        """
        import asyncio, os
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            while message.attempt == 2 and not os.path.exists("go"):
                await asyncio.sleep(0.02)
            if message.attempt < 3:
                raise ValueError("not yet")
        """
    )
    work, names = rabbit_project.name("work"), orders(20)
    async with rabbit_project.running() as runner:
        send(foreign, work, names)
        await until(lambda: len(attempts(rabbit_project, 2)) == 20, "all are at their second attempt")
        proxy.cut()
        await both_lost(runner, Counter())
        await until(lambda: is_back(runner, subscribers=1), "everything is back")
        (rabbit_project.folder / "go").touch()
        await fault.recovery(lambda: len(attempts(rabbit_project, 3)) == 20, "all are at their third attempt", 20)
    check_quiet(runner)
    fault.judge(names, attempts(rabbit_project, 3), twice=20)
    check_empty(foreign, work, f"{work}.dead", f"{rabbit_project.unique}.retry.300")


HOP = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/', heartbeat: 2s}
    logging: {messages: false}
    queues: {UNIQUE.work: {}, UNIQUE.next: {}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:pass_on, to: UNIQUE.next}
      next: {from: UNIQUE.next, handler: work:handle}
"""
HOP_HANDLERS = """
    import asyncio

    async def pass_on(order: str) -> str:
        await asyncio.sleep(0.005)
        return order

    async def handle(order: str) -> None:
        note(order)
"""


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault("F32", "killed after it has taken the results, before its confirms arrive; three times")
async def test_a_broker_that_dies_with_the_confirms_of_results(
    own_node: Node, tmp_path: Path, unique: str, fault: Fault
) -> None:
    """Everything reaches the broker, nothing that it answers comes through; then it is gone."""
    project, names = Project(tmp_path, unique, Place(())), orders(1500)
    project.write(HOP, HOP_HANDLERS)
    work, following = project.name("work"), project.name("next")
    async with Proxy(own_node.port) as proxy:
        through(proxy, project)
        async with project.running() as runner:
            with Foreign(own_node.url) as foreign:
                await asyncio.to_thread(own_node.wait_until_kept, work, following)
                send(foreign, work, names)
            for share in (200, 500, 800):
                await until(
                    partial(lambda share: len(project.ledger.entries()) >= share, share), f"{share} handled", 60
                )
                before = losses(runner)
                proxy.half_open("down")
                await asyncio.sleep(0.3)  # what is being published arrives, and is never confirmed
                await asyncio.to_thread(own_node.kill)
                proxy.cut()
                proxy.pass_through()
                await both_lost(runner, before)
                await asyncio.to_thread(own_node.start)
                await fault.recovery(lambda: is_back(runner), "everything is back")
            await until(lambda: project.ledger.counts().keys() >= set(names), "all are handled", 60)
    check_quiet(runner)
    fault.judge(names, project.ledger.counts(), twice=3 * 3 * PREFETCH)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, work, following, f"{work}.dead", f"{following}.dead")


@pytest.mark.parametrize("what", ["gone", "blocked"])
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F33", "SIGTERM while results cannot be published: the broker is")
async def test_a_drain_without_a_broker(own_node: Node, own_project: Project, fault: Fault, what: str) -> None:
    """It ends within its grace all the same; what it could not publish comes again to the next one."""
    names = orders(300)
    own_project.write(HOP + "    shutdown: {grace: 3s}\n", HOP_HANDLERS.replace("0.005", "0.3"))
    work, following = own_project.name("work"), own_project.name("next")
    async with own_project.up() as runner:
        await started(runner)
        with Foreign(own_node.url) as foreign:
            await asyncio.to_thread(own_node.wait_until_kept, work, following)
            send(foreign, work, names)
        await own_project.ledger.wait_for(50)
        if what == "gone":
            await asyncio.to_thread(own_node.kill)
            await both_lost(runner, Counter())
        else:
            await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.00001")
            await runner.wait_for(lambda line: line["event"] == "broker.blocked")
        runner.signal(signal.SIGTERM)
        code = await runner.wait(timeout=25)
        assert code in (0, 1), runner.stderr
        assert "Traceback" not in runner.stderr
    if what == "gone":
        await asyncio.to_thread(own_node.start)
    else:
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.4")
    async with own_project.up() as runner:
        await fault.recovery(lambda: own_project.ledger.counts().keys() >= set(names), "the next one does the rest")
        await stop(runner)
    fault.judge(names, own_project.ledger.counts(), twice=3 * PREFETCH)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, work, following, f"{work}.dead", f"{following}.dead")


@pytest.mark.fault("F34", "a queue is deleted and declared again while we drain")
async def test_a_queue_that_is_made_anew_during_the_drain(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """What was in it is gone by somebody's hand; what comes into the new one is not, and what runs ends in peace."""
    rabbit_project.write(HOP, HOP_HANDLERS.replace("0.005", "1.5"))
    work, after = rabbit_project.name("work"), orders(40, "after")
    async with rabbit_project.up() as runner:
        await started(runner)
        send(foreign, work, orders(10, "before"))
        await until(lambda: foreign.count(work) == 0, "ten are in hand")
        runner.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        foreign.channel.queue_delete(work)
        assert await runner.wait() in (0, 1)
        assert "Traceback" not in runner.stderr
    async with rabbit_project.running() as runner:
        send(foreign, work, after)
        await fault.recovery(lambda: rabbit_project.ledger.counts().keys() >= set(after), "the new queue works")
        await until(lambda: len(rabbit_project.ledger.counts()) == 50, "what had been in hand was passed on", 20)
    fault.judge([*orders(10, "before"), *after], rabbit_project.ledger.counts(), twice=10)
    check_empty(foreign, work, rabbit_project.name("next"))


@pytest.mark.fault("F35", "the disk that the log goes to is full")
async def test_a_log_that_cannot_be_written(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Each line fails with ENOSPC, on both outputs: it goes on, unseen, and ends in good order."""
    load = Load(rabbit_project, sent=300, made=300, work_s=0.002, pace_s=0.001)
    file, module = rabbit_project.folder / rabbit_project.file, rabbit_project.folder / "work.py"
    file.write_text(file.read_text().replace("logging: {messages: false}", "logging: {messages: true}"))
    await rabbit_project.up_until_idle("--only", "work")  # declares
    load.send(foreign)
    code = module.read_text()
    full = "import os\nfor full in (1, 2):\n    os.dup2(os.open('/dev/full', os.O_WRONLY), full)\n"
    module.write_text(full + code)
    async with rabbit_project.up() as runner:
        await load.reach(300)
        runner.signal(signal.SIGTERM)
        assert await runner.wait() == 0
    module.write_text(code)
    async with rabbit_project.up() as runner:
        await fault.recovery(lambda: load.done().keys() >= load.expected, "everything is handled", 30)
        await stop(runner)
    fault.judge(load.expected, load.done(), twice=len(load.expected) + PREFETCH)
    check_empty(foreign, *load.queues)


@pytest.mark.slow
@pytest.mark.fault("F36", "no file descriptors are left when the connections are cut")
async def test_a_process_without_descriptors(
    rabbit_project: Project, foreign: Foreign, proxy: Proxy, fault: Fault
) -> None:
    """It cannot even open a socket, nor a ledger: messages fail, are retried, and it comes back when it can."""
    through(proxy, rabbit_project)
    load = Load(rabbit_project, sent=800, made=200)
    file = rabbit_project.folder / rabbit_project.file
    retry = "    defaults: {subscriber: {retry: {attempts: 50, delay: 300ms, backoff: fixed}}}\n"
    file.write_text(file.read_text() + retry.removeprefix("    "))
    async with rabbit_project.running() as runner:
        load.send(foreign)
        await load.reach(100)
        _, hard = resource.prlimit(runner.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (3, hard))
        proxy.cut()
        await both_lost(runner, Counter())
        await asyncio.sleep(4)  # the fault lasts so long
        resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (hard, hard))
        await fault.recovery(lambda: is_back(runner), "everything is back")
        await load.finish()
    fault.judge(load.expected, load.done(), twice=2 * (2 * PREFETCH + UNCONFIRMED))
    check_empty(foreign, *load.queues)


@pytest.fixture
def prompt_node(own_node: Node) -> Node:
    """A node that soon tries a dead letter again that its queue has refused; by default that takes three minutes."""
    own_node.eval("application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).")
    return own_node


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.fault("F37", "the work queue is full when retries come back to it")
async def test_retries_that_come_back_to_a_full_queue(prompt_node: Node, own_project: Project, fault: Fault) -> None:
    """They wait in the wait queue until there is room, however long that takes."""
    own_project.pipeline(
        """
        version: 1
        logging: {messages: false}
        defaults: {subscriber: {retry: {attempts: 4, delay: 500ms, backoff: fixed}}}
        queues: {UNIQUE.work: {max_length: 20, overflow: reject-publish}}
        subscribers:
          work: {from: UNIQUE.work, handler: work:handle, concurrency: 5, prefetch: 5}
        """
    )
    own_project.handlers(
        """
        import asyncio
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            await asyncio.sleep(0.05)
            if message.attempt == 1:
                raise ValueError("not yet")
            note(order, message.attempt)
        """
    )
    work, names = own_project.name("work"), orders(300)

    def press() -> None:
        """Publish as somebody who never lets go: what is refused is sent again at once."""
        import pika

        with Foreign(prompt_node.url) as foreign:
            channel = foreign.channel
            channel.confirm_delivery()
            for name in names:
                while True:
                    try:
                        properties = pika.BasicProperties(delivery_mode=2, message_id=name)
                        channel.basic_publish("", work, name.encode(), properties, mandatory=True)
                        break
                    except pika.exceptions.NackError:
                        continue

    async with own_project.running() as runner:
        await asyncio.to_thread(press)
        await fault.recovery(lambda: own_project.ledger.counts().keys() >= set(names), "all are retried", 80)
    check_quiet(runner)
    fault.judge(names, own_project.ledger.counts(), twice=len(names))
    with Foreign(prompt_node.url) as foreign:
        check_empty(foreign, work, f"{work}.dead", f"{own_project.unique}.retry.500")


@pytest.mark.fault("F38", "two versions of a pipeline at the same time, the newer one in part refused")
async def test_two_versions_of_a_pipeline(rabbit_project: Project, foreign: Foreign, fault: Fault) -> None:
    """Other delays, another prefetch and one more queue live beside the old ones; another queue type does not start."""
    old = """
        version: 1
        name: UNIQUE
        defaults: {subscriber: {retry: {attempts: 3, delay: 400ms, backoff: fixed}}}
        queues: {UNIQUE.work: {}}
        subscribers:
          work: {from: UNIQUE.work, handler: work:handle, concurrency: 4}
    """
    new = old.replace("400ms", "700ms").replace("concurrency: 4", "concurrency: 2, prefetch: 3")
    rabbit_project.pipeline(old)
    rabbit_project.pipeline(new, "new.yaml")
    rabbit_project.pipeline(new.replace("UNIQUE.work: {}", "UNIQUE.work: {type: classic}"), "wrong.yaml")
    rabbit_project.handlers(
        """
        import asyncio
        from runner import Message

        async def handle(order: str, message: Message) -> None:
            await asyncio.sleep(0.01)
            if message.attempt < 3:
                raise ValueError("not yet")
            note(order, message.attempt)
        """
    )
    work, names = rabbit_project.name("work"), orders(300)
    place = rabbit_project.place.arguments
    async with rabbit_project.up() as one:
        await started(one)
        async with rabbit_project.run("up", "new.yaml", *place) as other:
            await started(other)
            send(foreign, work, names[:200])
            async with rabbit_project.run("up", "wrong.yaml", *place) as wrong:
                assert await wrong.wait() not in (0, -signal.SIGKILL)
            send(foreign, work, names[200:])
            await rabbit_project.ledger.wait_for(50)
            await stop(one)
            await fault.recovery(
                lambda: rabbit_project.ledger.counts().keys() >= set(names), "the newer one does the rest"
            )
            await stop(other)
    assert {entry.pid for entry in rabbit_project.ledger.entries()} == {one.pid, other.pid}
    fault.judge(names, rabbit_project.ledger.counts(), twice=0)
    check_empty(foreign, work, f"{work}.dead")


@pytest.fixture
def attentive_node(own_node: Node) -> Node:
    """A node that soon looks whether a consumer holds a message for longer than its consumer_timeout."""
    own_node.eval("application:set_env(rabbit, channel_tick_interval, 500).")
    return own_node


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.node(config="consumer_timeout = 3000")
@pytest.mark.fault("F39", "one handler always outlasts the broker's consumer_timeout, and then fails")
async def test_a_handler_that_outlasts_the_broker_and_fails(
    attentive_node: Node, own_project: Project, fault: Fault
) -> None:
    """Its failure cannot be settled on the channel that is gone: it is dead-lettered in the end, its neighbours not."""
    own_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {delivery_limit: 5}}
        subscribers:
          work: {from: UNIQUE.work, handler: work:handle, concurrency: 10, prefetch: 20, retry: none}
        """
    )
    own_project.handlers(
        """
        import asyncio

        async def handle(order: str) -> None:
            if order == "slow":
                await asyncio.sleep(5)
                raise ValueError("and all in vain")
            await asyncio.sleep(0.3)
            note(order)
        """
    )
    work, names = own_project.name("work"), orders(300)
    with Foreign(attentive_node.url) as foreign:
        async with own_project.running():
            send(foreign, work, ["slow", *names])
            done = own_project.ledger.counts
            await fault.recovery(lambda: done().keys() >= set(names), "the others are handled", 120)
            await until(lambda: foreign.count(f"{work}.dead") == 1, "it is dead-lettered", 120)
        assert [letter.body for letter in foreign.take(f"{work}.dead")] == [b"slow"]
        fault.judge(names, own_project.ledger.counts(), twice=6 * PREFETCH)
        check_empty(foreign, work)


class Shredder(Proxy):
    """A proxy that passes on a few bytes at a time, and cuts a connection in the middle of a frame now and then."""

    def __init__(self, upstream_port: int, seed: int) -> None:
        super().__init__(upstream_port)
        self.cuts = 0
        self._random = random.Random(seed)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: object) -> None:
        left = self._random.randint(2_000, 60_000)
        while data := await reader.read(4096):
            while data:
                size = self._random.choice((1, 2, 3, 7, 8, 100, 1000))
                piece, data = data[:size], data[size:]
                left -= len(piece)
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
                if left <= 0:
                    self.cuts += 1
                    writer.transport.abort()
                    raise OSError("cut")
        if writer.can_write_eof():
            writer.write_eof()


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.fault("F40", "a few bytes at a time, and a cut within a frame every some ten thousand")
async def test_connections_that_are_cut_within_frames(
    rabbit_project: Project, foreign: Foreign, rabbitmq: Broker, fault: Fault
) -> None:
    """No half of a frame is ever taken for a whole one, in either direction, on results, acknowledgements, confirms."""
    names = orders(600)
    rabbit_project.write(HOP, HOP_HANDLERS)
    await rabbit_project.up_until_idle()  # declares
    send(foreign, rabbit_project.name("work"), names)
    async with Shredder(rabbitmq.port, seed=1) as proxy:
        through(proxy, rabbit_project)
        async with rabbit_project.up() as runner:
            await fault.recovery(
                lambda: rabbit_project.ledger.counts().keys() >= set(names), "all are handled", timeout=100
            )
            runner.signal(signal.SIGTERM)
            await runner.wait()
            check_quiet(runner)
    assert proxy.cuts > 5
    fault.judge(names, rabbit_project.ledger.counts(), twice=proxy.cuts * 3 * PREFETCH)


@pytest.mark.fault("F41", "kill -9 while a child of a handler keeps the sockets open")
async def test_a_child_that_keeps_the_sockets_of_its_parent(
    rabbit_project: Project, foreign: Foreign, fault: Fault
) -> None:
    """The broker learns of the death by the heartbeat only; what was in hand comes to the next one then."""
    rabbit_project.pipeline(HOP)
    rabbit_project.handlers(
        """
        import asyncio, os, time

        async def pass_on(order: str) -> str:
            if not os.path.exists("forked"):
                open("forked", "w").close()
                if os.fork() == 0:
                    time.sleep(40)
                    os._exit(0)
            await asyncio.sleep(0.02)
            return order

        async def handle(order: str) -> None:
            note(order)
        """
    )
    work, following, names = rabbit_project.name("work"), rabbit_project.name("next"), orders(300)
    async with rabbit_project.up() as runner:
        await started(runner)
        send(foreign, work, names)
        await rabbit_project.ledger.wait_for(100)
        runner.signal(signal.SIGKILL)
        await until(lambda: has_ended(runner), "it is dead")
        async with rabbit_project.running():
            await fault.recovery(
                lambda: rabbit_project.ledger.counts().keys() >= set(names), "the next one does the rest"
            )
    fault.judge(names, rabbit_project.ledger.counts(), twice=3 * PREFETCH)
    check_empty(foreign, work, following)


EVERYTHING = """
    version: 1
    broker: {url: 'amqp://127.0.0.1:1/', heartbeat: 2s}
    logging: {messages: false}
    defaults: {subscriber: {retry: {attempts: 20, delay: 700ms, backoff: fixed}}}
    queues: {UNIQUE.work: {delivery_limit: 60}, UNIQUE.next: {delivery_limit: 60}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:pass_on, to: UNIQUE.next}
      next: {from: UNIQUE.next, handler: work:handle}
"""
FAILING = """
    import asyncio, zlib
    from runner import Message

    def fails(order: str, attempt: int) -> bool:
        return zlib.crc32(f"{order} {attempt}".encode()) % 3 == 0 and attempt < 10

    async def pass_on(order: str, message: Message) -> str:
        await asyncio.sleep(0.1)
        if fails(order, message.attempt):
            raise ValueError("not yet")
        return order

    async def handle(order: str, message: Message) -> None:
        await asyncio.sleep(0.05)
        if fails(order, message.attempt + 3):
            raise ValueError("not yet")
        note(order, message.attempt)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.fault("F42", "anything at any time, a third of all attempts fails, the rest has a result")
async def test_whatever_happens_no_attempt_is_lost(
    own_node: Node, tmp_path_factory: pytest.TempPathFactory, unique: str, fault: Fault, seed: int
) -> None:
    """As the other chaos, where messages also wait for their retry, or go on to a second queue, when it strikes."""
    names = orders(1000)
    async with Proxy(own_node.port) as proxy:
        project = Project(tmp_path_factory.mktemp("project"), unique, Place.at(proxy.url))
        project.write(EVERYTHING, FAILING)
        work, following, wait = project.name("work"), project.name("next"), f"{unique}.retry.700"
        chaos = Chaos(own_node, proxy, project, seed)
        async with chaos.two_runners():
            await asyncio.to_thread(own_node.wait_until_kept, work, following, wait)
            with Foreign(own_node.url) as foreign:
                await asyncio.to_thread(send, foreign, work, names)
            await chaos.rage(fault, lambda: project.ledger.counts().keys() >= set(names))
    fault.judge(names, project.ledger.counts(), twice=(chaos.cuts + chaos.killed) * 2 * 4 * PREFETCH)
    with Foreign(own_node.url) as foreign:
        check_empty(foreign, f"{work}.dead", f"{following}.dead")
