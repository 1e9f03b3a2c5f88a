"""What a pipeline asks of RabbitMQ: exchanges, bindings, queues with their limits, and what belongs to others."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.foreign import Foreign
from tests.project import Project, lines, started, stop, until

HEAR = """
    from runner import Message
    def hear(payload, message: Message) -> None: note(f"{message.queue} {payload}")
"""


async def test_queues_are_bound_to_exchanges_of_every_type(rabbit_project: Project, foreign: Foreign) -> None:
    """By key to topic and direct exchanges, by headers to headers exchanges, by nothing to fanouts."""
    rabbit_project.pipeline(
        """
        version: 1
        exchanges:
          UNIQUE.top:
          UNIQUE.dir: direct
          UNIQUE.fan: {type: fanout}
          UNIQUE.hdr: {type: headers, durable: false}
        queues:
          UNIQUE.top: {bind: [{exchange: UNIQUE.top, key: "stock.#"}, {exchange: UNIQUE.top, key: "*.urgent"}]}
          UNIQUE.dir: {bind: [{exchange: UNIQUE.dir, key: one}]}
          UNIQUE.fan: {bind: [{exchange: UNIQUE.fan}]}
          UNIQUE.all: {bind: [{exchange: UNIQUE.hdr, headers: {kind: pdf, size: 4}, match: all}]}
          UNIQUE.any: {bind: [{exchange: UNIQUE.hdr, headers: {kind: pdf, size: 4}, match: any}]}
        subscribers:
          a: {from: UNIQUE.top, handler: work:hear}
          b: {from: UNIQUE.dir, handler: work:hear}
          c: {from: UNIQUE.fan, handler: work:hear}
          d: {from: UNIQUE.all, handler: work:hear}
          e: {from: UNIQUE.any, handler: work:hear}
        """
    )
    rabbit_project.handlers(HEAR)
    async with rabbit_project.running():
        for exchange, keys in {
            "top": ["stock", "stock.a.b", "x.urgent", "x.y.urgent"],
            "dir": ["one", "one.two"],
        }.items():
            for key in keys:
                foreign.publish(key, key.encode(), exchange=rabbit_project.name(exchange))
        foreign.publish("whatever", b"everyone", exchange=rabbit_project.name("fan"))
        for text, headers in {
            "both": {"kind": "pdf", "size": 4},
            "kind": {"kind": "pdf"},
            "none": {"kind": "x"},
        }.items():
            foreign.publish("", text.encode(), exchange=rabbit_project.name("hdr"), headers=headers)
        await rabbit_project.ledger.wait_for(8)
    assert rabbit_project.heard() == [
        "all both",
        "any both",
        "any kind",
        "dir one",
        "fan everyone",
        "top stock",
        "top stock.a.b",
        "top x.urgent",
    ]


async def test_events_travel_by_the_exchange_and_key_they_name(project: Project) -> None:
    """An event alone, a list, patterns, and a queue bound to events: each gets its own copy, and nothing else."""
    project.pipeline(
        """
        version: 1
        exchanges: {UNIQUE.shop: topic, UNIQUE.direct: direct}
        events:
          UNIQUE.order.paid: {exchange: UNIQUE.shop, key: v1.paid}
          UNIQUE.order.sent: {exchange: UNIQUE.direct, key: sent}
          UNIQUE.order.line.gone:
          UNIQUE.stock:
        queues:
          UNIQUE.both: {events: ["UNIQUE.*.paid", UNIQUE.stock]}
        producers:
          send: {handler: work:send, to: [UNIQUE.order.paid, UNIQUE.order.sent, UNIQUE.order.line.gone, UNIQUE.stock]}
        subscribers:
          one: {from: UNIQUE.order.paid, handler: work:name}
          some: {from: [UNIQUE.order.sent, UNIQUE.stock], handler: work:name}
          orders: {from: "UNIQUE.order.*", handler: work:name}
          below: {from: "UNIQUE.order.#", handler: work:name}
          both: {from: UNIQUE.both, handler: work:name}
        """
    )
    project.handlers(
        """
        from runner import Message
        def send(): return 1
        def name(payload: int, message: Message) -> None:
            event = message.event.removeprefix("UNIQUE.")
            note(f"{message.queue} {event} {message.exchange.removeprefix('UNIQUE.')}:{message.routing_key}")
        """
    )
    await project.up_until_idle()
    paid, sent = "order.paid shop:v1.paid", "order.sent direct:sent"
    gone = f"order.line.gone events:{project.name('order.line.gone')}"
    stock = f"stock events:{project.name('stock')}"
    assert project.heard() == sorted(
        [
            f"one {paid}",
            *(f"some {event}" for event in (sent, stock)),
            *(f"orders {event}" for event in (paid, sent)),
            *(f"below {event}" for event in (paid, sent, gone)),
            *(f"both {event}" for event in (paid, stock)),
        ]
    )


FOREIGN = """
    version: 1
    exchanges: {UNIQUE.theirs: {type: direct, declare: false}}
    queues:
      UNIQUE.theirs: {declare: false}
      UNIQUE.ours: {}
    subscribers:
      hear: {from: UNIQUE.theirs, handler: work:hear, retry: none}
      ours: {from: UNIQUE.ours, handler: work:hear}
"""


async def test_what_belongs_to_others_must_exist_and_nothing_is_made_without_it(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """`declare: false`, and not there: exit 69 naming the queue and the exchange; our own queue is not made either."""
    rabbit_project.write(FOREIGN, HEAR)
    runner = await rabbit_project.do("up", code=69)
    for kind in ("queue", "exchange"):
        assert f'{kind} "{rabbit_project.name("theirs")}" does not exist' in runner.stderr
    assert not foreign.has_queue(rabbit_project.name("ours"))
    assert not foreign.has_queue(rabbit_project.name("theirs"))


async def test_what_belongs_to_others_is_used_as_it_is(rabbit_project: Project, foreign: Foreign) -> None:
    """Whatever its arguments are; what fails is kept in a dead-letter queue of ours all the same."""
    theirs = rabbit_project.name("theirs")
    foreign.channel.queue_declare(theirs, durable=True, arguments={"x-max-length": 77, "x-queue-mode": "lazy"})
    foreign.channel.exchange_declare(theirs, "direct", durable=False, auto_delete=False)
    rabbit_project.pipeline(FOREIGN)
    rabbit_project.handlers(
        HEAR
        + """
    def hear(payload, message: Message) -> None:
        if payload == "bad": raise ValueError("bad")
        note(f"{message.queue} {payload}")
    """
    )
    foreign.publish(theirs, b"good", b"bad")
    await rabbit_project.up_until_idle()
    assert rabbit_project.heard() == ["theirs good"]
    assert [got.body for got in foreign.take(f"{theirs}.dead")] == [b"bad"]
    foreign.channel.queue_declare(theirs, durable=True, arguments={"x-max-length": 77, "x-queue-mode": "lazy"})
    foreign.channel.exchange_declare(theirs, "direct", durable=False, auto_delete=False)


async def test_what_belongs_to_another_pipeline_of_the_process_is_there(project: Project) -> None:
    """`declare: false`, on the embedded broker too: with options that only its owner knows."""
    project.pipeline(
        """
        version: 1
        exchanges: {UNIQUE.bus: direct}
        events: {UNIQUE.paid: {exchange: UNIQUE.bus, key: paid}}
        queues: {UNIQUE.theirs: {type: classic, max_length: 5}}
        producers: {send: {handler: work:send, to: UNIQUE.theirs}}
        """,
        file="UNIQUE.owner.yaml".replace("UNIQUE", project.unique),
    )
    project.pipeline(
        """
        version: 1
        exchanges: {UNIQUE.bus: {declare: false}}
        queues:
          UNIQUE.theirs: {declare: false}
          UNIQUE.bound: {bind: [{exchange: UNIQUE.bus, key: paid}]}
        subscribers:
          hear: {from: UNIQUE.theirs, handler: work:hear}
          pay: {from: UNIQUE.bound, handler: work:hear}
        """
    )
    project.handlers(HEAR + "\n    def send(): return 'order'\n")
    await project.up_until_idle(f"{project.unique}.owner.yaml")
    assert project.heard() == ["theirs order"]


async def test_what_belongs_to_a_pipeline_that_does_not_run_is_missing(project: Project) -> None:
    """Exit 69: its owner must be started first."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.theirs: {declare: false}}
        subscribers: {hear: {from: UNIQUE.theirs, handler: work:hear}}
        """
    )
    project.handlers(HEAR)
    runner = await project.do("up", code=69)
    assert f'queue "{project.name("theirs")}" does not exist' in runner.stderr
    assert "start its owner first" in runner.stderr
    assert "set `declare: false`" not in runner.stderr


GIVEN_UP = """
    version: 1
    queues:
      UNIQUE.work:
      DECLARED
    producers: {send: {handler: work:send, to: UNIQUE.work}}
    subscribers:
      work: {from: UNIQUE.work, handler: work:fail, retry: none}
"""
MENDING = "      mend: {from: UNIQUE.work.dead, handler: work:hear}\n"
FAILING = (
    HEAR + "\n    def send(): return 'order'\n    def fail(order: str, message: Message): raise ValueError(order)\n"
)


async def test_what_was_given_up_on_can_be_read(project: Project) -> None:
    """On a fresh broker."""
    project.write(GIVEN_UP.replace("DECLARED", "UNIQUE.work.dead:") + MENDING, FAILING)
    await project.up_until_idle()
    assert project.heard() == ["work.dead order"]


async def test_what_was_given_up_on_can_be_read_later(rabbit_project: Project) -> None:
    """The dead-letter queue that the pipeline has made by itself is declared and read, and undeclared again."""
    rabbit_project.write(GIVEN_UP.replace("DECLARED", ""), FAILING)
    await rabbit_project.up_until_idle()
    rabbit_project.pipeline(GIVEN_UP.replace("DECLARED", "UNIQUE.work.dead:") + MENDING)
    await rabbit_project.up_until_idle()
    assert rabbit_project.heard() == ["work.dead order"] * 2
    rabbit_project.pipeline(GIVEN_UP.replace("DECLARED", ""))
    await rabbit_project.up_until_idle()


@pytest.mark.parametrize(("kind", "count"), [("classic", 40), ("quorum", 300)])
async def test_a_producer_waits_at_a_full_queue_and_loses_nothing(
    rabbit_project: Project, foreign: Foreign, kind: str, count: int
) -> None:
    """`max_length`: what the broker refuses is offered again until there is room. A quorum queue is late to refuse."""
    rabbit_project.pipeline(
        f"""
        version: 1
        queues: {{UNIQUE.work: {{type: {kind}, max_length: 20}}}}
        producers:
          send: {{handler: work:send, to: UNIQUE.work}}
        subscribers:
          hear: {{from: UNIQUE.work, handler: work:hear}}
        """
    )
    rabbit_project.handlers(
        f"""
        def send(): return list(range({count}))
        async def hear(number: int) -> None: note(number)
        """
    )
    queue = rabbit_project.name("work")
    async with rabbit_project.running("--only", "send") as sending:
        await until(lambda: foreign.count(queue) >= 20, "it is full")
        assert foreign.count(queue) < count
        assert lines(sending, "producer.finished") == []
        async with rabbit_project.running("--only", "hear"):
            await rabbit_project.ledger.wait_for(count)
            await sending.wait_for(lambda line: line["event"] == "producer.finished")
    assert rabbit_project.ledger.counts() == Counter(map(str, range(count)))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_message_that_waits_too_long_is_dead_lettered(
    rabbit_project: Project, foreign: Foreign, kind: str
) -> None:
    """`message_ttl`: the broker moves it, and says why."""
    rabbit_project.pipeline(
        f"""
        version: 1
        queues: {{UNIQUE.work: {{type: {kind}, message_ttl: 100ms}}}}
        producers:
          send: {{handler: work:send, to: UNIQUE.work}}
        """
    )
    rabbit_project.handlers("def send(): return 'late'")
    dead = rabbit_project.name("work.dead")
    await rabbit_project.up_until_idle()
    await until(lambda: foreign.count(dead) == 1, "it is dead-lettered")
    (got,) = foreign.take(dead)
    assert got.body == b"late"
    assert got.headers["x-death"][0]["reason"] == "expired"


async def test_what_is_urgent_comes_first(rabbit_project: Project, foreign: Foreign) -> None:
    """`max_priority` of a classic queue, with messages of a program that sets priorities."""
    rabbit_project.one_queue(
        "def handle(number: int) -> None: note(number)",
        "concurrency: 1, prefetch: 1",
        queue="type: classic, max_priority: 9",
    )
    await rabbit_project.up_until_idle()  # declares
    for priority in (3, 9, 1, 5, 7):
        foreign.publish(rabbit_project.name("work"), str(priority).encode(), priority=priority)
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.payloads() == ["9", "7", "5", "3", "1"]


async def test_a_single_active_consumer_has_the_queue_to_itself(rabbit_project: Project, foreign: Foreign) -> None:
    """Of two processes one gets everything, until it stops."""
    rabbit_project.one_queue(
        "def handle(number: int) -> None: note(number)",
        queue="single_active_consumer: true",
    )
    numbers = [str(number).encode() for number in range(200)]
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        foreign.publish(rabbit_project.name("work"), *numbers)
        (active,) = {entry.pid for entry in await rabbit_project.ledger.wait_for(200)}
        stopping, other = (first, second) if first.pid == active else (second, first)
        await stop(stopping)
        foreign.publish(rabbit_project.name("work"), *numbers)
        entries = await rabbit_project.ledger.wait_for(400)
        assert {entry.pid for entry in entries[200:]} == {other.pid}
        await stop(other)


async def test_a_message_that_kills_its_process_is_dead_lettered_after_delivery_limit(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """The third crash with `delivery_limit: 2` is its last; the broker keeps it, and the next start is quiet."""
    rabbit_project.one_queue(
        """
        import os, signal
        def handle(text: str) -> None:
            note(text)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        queue="delivery_limit: 2",
    )
    await rabbit_project.up_until_idle()  # declares
    foreign.publish(rabbit_project.name("work"), b"poison")
    for _ in range(3):
        await rabbit_project.do("up", code=-9)
    await until(lambda: foreign.count(rabbit_project.name("work.dead")) == 1, "it is dead-lettered")
    await rabbit_project.up_until_idle()
    assert rabbit_project.ledger.counts() == {"poison": 3}
