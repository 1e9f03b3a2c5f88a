"""A model of delivery and settlement: two processes, handlers that end as they like, connections that are lost at any
await, and an operator who moves dead letters back byte for byte. Each message is handled in the end, and none is begun
by a process that has lost it.

The model is the runtime with a real transport below it: RabbitMQ behind a proxy for each process, or the in-process
broker, where losing a connection is the end of a session whose handlers go on.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import aio_pika
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from runner import log
from runner.errors import Reject
from runner.message import Address, Envelope
from runner.outcome import ACK
from runner.pipeline.model import BrokerSettings
from runner.runtime.supervisor import Supervisor
from runner.transports.base import Delivery, OnDelivery, Subscription, SubscriptionOptions, Transport, TransportEvent
from runner.transports.file import FileBroker, FileTransport
from runner.transports.memory import MemoryBroker, MemoryTransport
from runner.transports.rabbitmq import RabbitTransport
from tests.node import Broker
from tests.proxy import Proxy
from tests.unit.runtime.running import pipeline

Outcome = Literal["done", "fails", "is rejected"]

PIPELINE = """
queues: {QUEUE: {}}
subscribers:
  work: {from: QUEUE, handler: "h:work", concurrency: 4, ORDER retry: {attempts: 2, delay: 50ms, backoff: fixed}}
"""
STEP_S = 0.03
HEALED_S = 30.0

names = itertools.count()


class Process:
    """One process: a transport of its own, and the runtime on it. `world` tells how its handlers end."""

    def __init__(self, world: World, transport: Transport, proxy: Proxy | None) -> None:
        self.world = world
        self.transport = transport
        self.proxy = proxy
        self.losses = 0
        self.fresh: set[str] = set()
        """The messages that came by the connection that there is now."""
        self.running: dict[asyncio.Future[Outcome], str] = {}
        self._subscribe = transport.subscribe
        self.supervisor: Supervisor

    async def start(self) -> None:
        made = pipeline(self.world.text, {"work": self.work})
        self.transport.subscribe = self.subscribe  # type: ignore[method-assign]
        await self.transport.connect()
        await self.transport.declare(made.topology)
        self.supervisor = Supervisor([made], self.transport, until_idle=False)
        await self.supervisor.start()

    async def subscribe(self, options: SubscriptionOptions, on_delivery: OnDelivery) -> Subscription:
        def note(delivery: Delivery) -> None:
            self.fresh.add(json.loads(delivery.envelope.body)["n"])
            on_delivery(delivery)

        return await self._subscribe(options, note)

    async def work(self, order: dict[str, str]) -> None:
        number = order["n"]
        if number not in self.fresh:
            self.world.stale.append(number)
        end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self.world.is_healed:
            end.set_result("done")
        self.running[end] = number
        try:
            outcome = await end
        finally:
            del self.running[end]
        if outcome == "fails":
            raise ValueError("it fails")
        if outcome == "is rejected":
            raise Reject("it is rejected")
        self.world.done.add(number)

    def on_transport_event(self, change: TransportEvent) -> None:
        if change.event == "broker.lost" and change.fields.get("role") == "consume":
            self.forget()

    def forget(self) -> None:
        self.losses += 1
        self.fresh.clear()


class World:
    """The broker, the processes and the operator."""

    def __init__(self, broker: Broker | Path | None, *, is_ordered: bool) -> None:
        log.configure(format="json", stream=io.StringIO())
        self.broker = broker if isinstance(broker, Broker) else None
        self.memory = FileBroker(broker) if isinstance(broker, Path) else MemoryBroker()
        self.queue = f"model{next(names)}x{id(self):x}"
        order = "order_by: key," if is_ordered else ""
        self.text = PIPELINE.replace("QUEUE", self.queue).replace("ORDER", order)
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        self.sent: set[str] = set()
        self.done: set[str] = set()
        self.stale: list[str] = []
        self.is_healed = False
        self.operator = self.transport("", lambda _: None)

    def transport(self, url: str, say: Callable[[TransportEvent], None]) -> Transport:
        if isinstance(self.memory, FileBroker):
            return FileTransport(self.memory, on_transport_event=say)
        if self.broker is None:
            return MemoryTransport(broker=self.memory, on_transport_event=say)
        return RabbitTransport(BrokerSettings(urls=(url or self.broker.url,)), on_transport_event=say)

    async def start(self) -> None:
        await self.operator.connect()
        for _ in range(2):
            await self.add()

    async def add(self) -> None:
        proxy = await Proxy(self.broker.port).__aenter__() if self.broker is not None else None
        changes: list[Callable[[TransportEvent], None]] = []
        transport = self.transport(proxy.url if proxy else "", lambda change: changes[0](change))
        process = Process(self, transport, proxy)
        changes.append(process.on_transport_event)
        self.processes.append(process)
        await process.start()

    async def send(self, key: str) -> None:
        number = str(len(self.sent))
        body = json.dumps({"key": key, "n": number}).encode()
        envelope = Envelope(body, message_id=f"id{number}", content_type="application/json")
        self.sent.add(number)
        await self.operator.publish(Address("", self.queue), envelope)

    async def begun(self, count: int = 1) -> None:
        """Wait until so many handlers are at work."""
        async with asyncio.timeout(HEALED_S):
            while sum(len(process.running) for process in self.processes) < count:
                await asyncio.sleep(STEP_S / 10)

    def end(self, which: int, outcome: Outcome) -> None:
        running = [end for process in (*self.gone, *self.processes) for end in process.running if not end.done()]
        if running:
            running[which % len(running)].set_result(outcome)

    async def lose(self, which: int) -> None:
        process = self.processes[which]
        if process.proxy is None:
            self.processes.remove(process)
            self.gone.append(process)
            await process.transport.close()
            process.forget()
            await self.add()
            return
        losses = process.losses
        process.proxy.cut()
        async with asyncio.timeout(HEALED_S):
            while process.losses == losses and not process.transport.unready_reasons:
                await asyncio.sleep(STEP_S / 10)

    async def rejected_and_moved_back(self) -> None:
        """Reject what is at work until there is something to move back.

        A message whose connection is lost may be at work in both processes, one of which cannot settle it any more.
        """
        async with asyncio.timeout(HEALED_S):
            self.end(0, "is rejected")
            while not await self.move_back(looks=20):
                self.end(0, "is rejected")

    async def move_back(self, looks: int = 1) -> int:
        """What the management page does, or a shovel: nothing is added, nothing is left out.

        It looks that often whether anything has come: on a busy machine it takes longer.
        """
        found: list[Delivery] = []
        options = SubscriptionOptions(
            queue=f"{self.queue}.dead", prefetch=100, dead_letter=None, wait_prefix=self.queue
        )
        subscription = await self.operator.subscribe(options, found.append)
        for _ in range(looks):
            await asyncio.sleep(STEP_S)
            if found:
                break
        await subscription.stop()
        for delivery in found:
            kept = {k: v for k, v in delivery.envelope.headers.items() if k != "x-delivery-count"}
            await self.operator.publish(Address("", self.queue), delivery.envelope._replace(headers=kept))
            await self.operator.settle(delivery, ACK)
        await subscription.close()
        return len(found)

    async def heal(self) -> None:
        """Let every handler succeed from now on, and wait until each message was handled."""
        self.is_healed = True
        try:
            async with asyncio.timeout(HEALED_S):
                while True:
                    for process in (*self.gone, *self.processes):
                        for end in process.running:
                            if not end.done():
                                end.set_result("done")
                    await self.move_back()
                    if self.sent == self.done:
                        break
        except TimeoutError:
            raise AssertionError(f"lost: {sorted(self.sent - self.done)}") from None

    async def close(self) -> None:
        for process in (*self.gone, *self.processes):
            await process.supervisor.drain()
            await process.transport.close()
            if process.proxy is not None:
                await process.proxy.__aexit__()
        await self.operator.close()
        if self.broker is not None:
            connection = await aio_pika.connect(self.broker.url)
            async with connection, connection.channel() as channel:
                for name in (self.queue, f"{self.queue}.dead", f"{self.queue}.retry.50"):
                    await channel.queue_delete(name)


class Model(RuleBasedStateMachine):
    """Draws what happens."""

    broker: Broker | Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.world: World

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        async def then_a_step() -> None:
            await work
            await asyncio.sleep(STEP_S)  # time passes, also where nothing happens in it

        self.loop.run(then_a_step())
        assert self.world.stale == [], "begun by a process that had lost it"

    @initialize(is_ordered=st.booleans(), keys=st.lists(st.sampled_from("ab"), max_size=3))
    def start(self, is_ordered: bool, keys: list[str]) -> None:
        self.world = World(self.broker, is_ordered=is_ordered)
        self.run(self.world.start())
        for key in keys:
            self.run(self.world.send(key))

    @rule(key=st.sampled_from("ab"))
    def send(self, key: str) -> None:
        self.run(self.world.send(key))

    @rule(which=st.integers(0, 7), outcome=st.sampled_from(("done", "fails", "is rejected")))
    def end(self, which: int, outcome: Outcome) -> None:
        self.world.end(which, outcome)
        self.run(asyncio.sleep(0))

    @rule(which=st.integers(0, 1))
    def lose(self, which: int) -> None:
        self.run(self.world.lose(which))

    @rule()
    def lose_both(self) -> None:
        """As when the broker starts again: what comes again may come to the process that had it."""
        for which in range(2):
            self.run(self.world.lose(which))

    @rule()
    def move_back(self) -> None:
        self.run(self.world.move_back())

    @rule()
    def wait(self) -> None:
        """Retries come back, connections too."""
        self.run(asyncio.sleep(0.3))

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.run(self.world.heal())
        finally:
            if hasattr(self, "world"):
                self.loop.run(self.world.close())
            self.loop.close()  # with what aiormq left waiting on connections that were cut
            super().teardown()


def check(broker: Broker | Path | None, examples: int, steps: int) -> None:
    model = type("BoundModel", (Model,), {"broker": broker})
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large]
    found = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=suppressed, database=None
    )
    run_state_machine_as_test(model, settings=found)


async def test_a_dead_letter_that_was_moved_back_is_not_its_original(rabbitmq: Broker) -> None:
    """Found by the model: its connection is lost after each of its two dead letters."""
    world = World(rabbitmq, is_ordered=False)
    await world.start()
    await world.send("a")
    for _ in range(2):
        await world.begun()
        await world.rejected_and_moved_back()
        await world.begun()
        for which in range(2):
            await world.lose(which)
        await asyncio.sleep(STEP_S * 10)
    world.end(0, "is rejected")
    await world.heal()
    await world.close()


async def test_nothing_of_a_key_is_begun_by_a_process_that_has_lost_it(rabbitmq: Broker) -> None:
    """Found by the model: what waited behind its key, and what waited for its retry."""
    world = World(rabbitmq, is_ordered=True)
    await world.start()
    for _ in range(4):
        await world.send("a")
    await world.begun()
    for which in range(2):
        await world.lose(which)
    world.end(0, "fails")
    await world.heal()
    assert world.stale == []
    await world.close()


@pytest.mark.timeout(300)
def test_the_model_on_the_in_process_broker() -> None:
    check(None, 20, 12)


@pytest.mark.timeout(300)
def test_the_model_on_a_broker_in_a_file(tmp_path: Path, no_file_left_open: None) -> None:
    check(tmp_path / "model.queue", 5, 12)


@pytest.mark.timeout(600)
def test_the_model_on_rabbitmq(rabbitmq: Broker) -> None:
    check(rabbitmq, 5, 12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["memory", "file", "rabbitmq"])
def test_more_of_the_model(kind: str, rabbitmq: Broker, tmp_path: Path) -> None:
    brokers: dict[str, Broker | Path | None] = {"memory": None, "file": tmp_path / "model.queue", "rabbitmq": rabbitmq}
    check(brokers[kind], 150, 25)
