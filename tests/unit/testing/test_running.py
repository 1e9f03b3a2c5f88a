"""`running` and `running_sync`: what a test of a pipeline does and sees."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runner import Publish
from runner.errors import CallFailed, NoAnswer, PublishFailed
from runner.operations.targets import UnknownTarget
from runner.testing import NeverIdle, Record, Replacement, running, running_sync
from runner.testing.running import UnknownInTest
from tests.unit.testing.projects import write_project

SHOP = """
    broker: amqp://guest:guest@rabbit.example
    events:
      order.paid:
      order.shipped: {unheard: ignore}
    subscribers:
      ship:
        from: order.paid
        handler: shop_handlers:ship
        to: order.shipped
        retry: {attempts: 4, delay: 1s}
    """
HANDLERS = """
    def ship(order: dict):
        if order["order"] == 13:
            raise RuntimeError("the carrier is away")
        return order
    """
NIGHT = datetime(2026, 3, 28, tzinfo=UTC)


def test_a_paid_order_is_shipped(tmp_path: Path) -> None:
    with running_sync(write_project(tmp_path, SHOP, HANDLERS), now=NIGHT) as shop:
        assert shop.publish("order.paid", {"order": 1}, id="o-1", headers={"tenant": "a"}) == "o-1"
        shop.until_idle()
        assert _story(shop.records) == [
            ("published", "o-1", None, "order.paid"),
            ("published", shop.published()[0].message_id, "ship", "order.shipped"),
            ("unheard", shop.published()[0].message_id, "ship", "order.shipped"),
            ("handled", "o-1", "ship", None),
        ]
        assert shop.published("order.shipped")[0].payload == {"order": 1}
        assert shop.published("order.shipped")[0].cause == "o-1"
        assert shop.handled("ship")[0].headers == {"tenant": "a"}
        assert shop.handled("shop.ship")[0].attempt == 1
        assert shop.dead() == shop.retried() == []
        assert shop.now == NIGHT


def test_the_same_for_a_test_that_is_a_coroutine(tmp_path: Path) -> None:
    path = write_project(tmp_path, SHOP, HANDLERS)

    async def test() -> None:
        async with running(path, now=NIGHT) as shop:
            await shop.publish("order.paid", {"order": 13})
            await shop.advance("2999ms")
            assert len(shop.retried("ship")) == 2
            await shop.advance("1ms")
            assert len(shop.retried("ship")) == 3
            await shop.until_idle()
            assert [record.after for record in shop.retried("ship")] == [1.0, 2.0, 4.0]
            (dead,) = shop.dead("shop.ship")
            assert (dead.reason, dead.error_type, dead.error) == ("exhausted", "RuntimeError", "the carrier is away")
            assert dead.to == "shop.ship.dead"
            assert shop.dead("shop.ship.dead") == [dead]
            assert shop.now == NIGHT + timedelta(seconds=7)

    asyncio.run(test())


def test_what_needs_no_time_has_happened_when_a_test_looks(tmp_path: Path) -> None:
    """A test that forgets `until_idle` sees what can happen at this moment, and no retry."""
    with running_sync(write_project(tmp_path, SHOP, HANDLERS)) as shop:
        shop.publish("order.paid", {"order": 1})
        assert len(shop.published("order.shipped")) == 1
        shop.publish("order.paid", {"order": 13})
        assert len(shop.retried("ship")) == 1
        assert shop.dead() == []


def test_time_stands_still_until_the_test_moves_it(tmp_path: Path) -> None:
    with running_sync(write_project(tmp_path, SHOP, HANDLERS), now=NIGHT) as shop:
        shop.advance("90m")
        assert shop.now == NIGHT + timedelta(minutes=90)
        shop.advance(0.25)
        shop.run_for(timedelta(milliseconds=750))
        assert shop.now == NIGHT + timedelta(minutes=90, seconds=1)
        with pytest.raises(ValueError, match="not a duration"):
            shop.advance("soon")


def test_a_name_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Else a test that expects nothing would pass because of a spelling mistake."""
    with running_sync(write_project(tmp_path, SHOP, HANDLERS)) as shop:
        with pytest.raises(UnknownInTest, match=r'no queue or event is called "order\.shiped"') as wrong:
            shop.published("order.shiped")
        assert 'did you mean "order.shipped"' in wrong.value.hint
        with pytest.raises(UnknownInTest, match='no subscriber is called "shop"'):
            shop.handled("shop")
        with pytest.raises(UnknownInTest, match=r'no queue is called "order\.paid"'):
            shop.dead("order.paid")
        with pytest.raises(UnknownTarget, match=r'"order\.payed"'):
            shop.publish("order.payed", {})


def test_a_payload_is_checked_unless_it_comes_from_elsewhere(tmp_path: Path) -> None:
    pipeline = """
        events: {order.paid: shop_handlers:Order}
        subscribers: {ship: {from: order.paid, handler: shop_handlers:ship}}
        """
    handlers = """
        from dataclasses import dataclass
        @dataclass
        class Order:
            order: int
        def ship(order: Order): pass
        """
    with running_sync(write_project(tmp_path, pipeline, handlers)) as shop:
        with pytest.raises(PublishFailed, match="does not fit the schema"):
            shop.publish("order.paid", {"order": "one"})
        shop.publish("order.paid", {"order": "one"}, is_foreign=True)
        assert [(record.reason, record.payload) for record in shop.dead("shop.ship")] == [("invalid", {"order": "one"})]


def test_a_reply_to_itself_for_ever_ends_with_its_names(tmp_path: Path) -> None:
    pipeline = """
        events: {ping: , pong: }
        subscribers:
          a: {from: ping, handler: shop_handlers:pass_on, to: pong}
          b: {from: pong, handler: shop_handlers:pass_on, to: ping}
        """
    handlers = """
        async def pass_on(payload): return payload
        """
    with running_sync(write_project(tmp_path, pipeline, handlers)) as shop:
        shop.publish("ping", 1)
        with pytest.raises(NeverIdle, match="a circle: a → pong → b → ping → a"):
            shop.until_idle()
        assert shop.records  # for the story of what went wrong
    _nothing_is_left()


def test_a_handler_that_waits_for_ever_ends_with_its_name(tmp_path: Path) -> None:
    handlers = """
        import asyncio
        async def ship(order): await asyncio.Event().wait()
        """
    with running_sync(write_project(tmp_path, SHOP, handlers)) as shop:
        shop.publish("order.paid", {"order": 1})
        with pytest.raises(NeverIdle, match="ship has 1 message"):
            shop.until_idle()
    _nothing_is_left()


def test_an_endless_schedule_does_not_keep_it_from_being_idle(tmp_path: Path) -> None:
    pipeline = """
        queues: {beats: }
        producers: {beat: {handler: shop_handlers:beat, every: 5s, to: beats}}
        subscribers: {listen: {from: beats, handler: shop_handlers:listen}}
        """
    handlers = """
        def beat(): return "beat"
        def listen(text: str): pass
        """
    with running_sync(write_project(tmp_path, pipeline, handlers), now=NIGHT) as shop:
        shop.until_idle()
        assert len(shop.handled("listen")) == 1
        shop.run_for("1m")
        assert [record.at - NIGHT for record in shop.published("beats")] == [
            timedelta(seconds=5 * tick) for tick in range(13)
        ]


def test_cron_on_the_day_the_clocks_change(tmp_path: Path) -> None:
    pipeline = """
        queues: {reports: }
        producers:
          daily: {handler: shop_handlers:daily, cron: "0 6 * * *", timezone: Europe/Berlin, to: reports}
        subscribers: {write: {from: reports, handler: shop_handlers:write}}
        """
    handlers = """
        def daily(): return "now"
        def write(text): pass
        """
    with running_sync(write_project(tmp_path, pipeline, handlers), now=NIGHT) as shop:
        shop.run_for("48h")
        assert [record.at.isoformat() for record in shop.published("reports")] == [
            "2026-03-28T05:00:00+00:00",
            "2026-03-29T04:00:00+00:00",
        ]


def test_a_program_of_its_own_threads_can_publish(tmp_path: Path) -> None:
    """From a handler in a thread, while the pipelines run: the message is that handler's."""
    seen: list[str] = []  # threads append as they come
    with running_sync(write_project(tmp_path, SHOP, HANDLERS), replace={"ship": lambda order: publish(order)}) as shop:

        def publish(order: dict[str, int]) -> None:
            if order["order"] < 3:
                seen.append(shop.publish("order.paid", {"order": order["order"] + 1}))

        shop.publish("order.paid", {"order": 1})
        shop.until_idle()
        assert sorted(record.payload["order"] for record in shop.handled("ship")) == [1, 2, 3]
        assert {record.message_id for record in shop.published("order.paid")} == set(seen)
        assert {record.subscriber for record in shop.published("order.paid")} == {"ship"}


def test_a_coroutine_of_a_handler_may_await_but_not_block(tmp_path: Path) -> None:
    path = write_project(tmp_path, SHOP, HANDLERS)

    async def test() -> None:
        async def ship(order: dict[str, int]) -> None:
            if order["order"] == 1:
                await shop.publish("order.paid", {"order": 2})

        async with running(path, replace={"ship": ship}) as shop:
            await shop.publish("order.paid", {"order": 1})
            await shop.until_idle()
            assert len(shop.handled("ship")) == 2

    asyncio.run(test())

    async def blocking(order: dict[str, int]) -> None:
        sync.publish("order.paid", {"order": 2})

    with running_sync(path, replace={"ship": blocking}) as sync:
        sync.publish("order.paid", {"order": 1})
        sync.until_idle()
        assert "cannot wait for the pipelines" in (sync.dead()[0].error or "")


def test_a_cancelled_test_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_project(tmp_path, SHOP, HANDLERS)

    async def test() -> None:
        hang = Replacement(handler=_hang)
        async with running(path, replace={"ship": hang}) as shop:
            await shop.publish("order.paid", {"order": 1})
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await shop.until_idle()
            await shop.advance("1s")

    asyncio.run(test())
    _nothing_is_left()


async def _hang(_: object) -> None:
    await asyncio.Event().wait()


def _nothing_is_left() -> None:
    import threading

    assert [thread.name for thread in threading.enumerate() if "under-test" in thread.name] == []


def _story(records: list[Record]) -> list[tuple[str, str, str | None, str | None]]:
    return [(record.kind, record.message_id, record.subscriber, record.to) for record in records]


# Questions and answers

QUOTES = """
    queues: {quotes: , nobody: }
    subscribers:
      quote: {from: quotes, handler: quote_handlers:quote, reply: true, retry: {attempts: 3, delay: 20s}}
    """
QUOTING = """
    from runner import Message, Reject

    def quote(kg: float, message: Message):
        if kg > 30:
            raise Reject("more than 30 kg")
        if kg == 0 or message.attempt < 3:
            raise ValueError("not yet")
        return {"price": kg * 2, "for": message.id}
    """


def test_a_call_returns_the_answer(tmp_path: Path) -> None:
    """After the retries, in virtual time; what the subscriber has published is an answer, whatever its address."""
    path = write_project(tmp_path, QUOTES, QUOTING, module="quote_handlers")
    with running_sync(path, now=NIGHT) as shop:
        assert shop.call("quotes", 2, id="q-1") == {"price": 4.0, "for": "q-1"}
        assert shop.now == NIGHT + timedelta(seconds=60)
        assert [(record.to, record.subscriber) for record in shop.published()] == [("(reply)", "quote")]
        with pytest.raises(CallFailed) as failed:
            shop.call("quotes", 40)
        assert (failed.value.reason, failed.value.error_type, failed.value.error) == (
            "rejected",
            "Reject",
            "more than 30 kg",
        )
        assert str(failed.value) == '"quotes" gave up (rejected): Reject: more than 30 kg'
        before = shop.now
        with pytest.raises(NoAnswer, match='"quotes" has not answered within 30s') as missing:
            shop.call("quotes", 0, timeout="30s")
        assert (missing.value.reason, shop.now) == ("timeout", before + timedelta(seconds=30))
        shop.until_idle()
        assert [record.reason for record in shop.dead("quotes")] == ["rejected", "exhausted"]
        with pytest.raises(UnknownTarget):
            shop.call("quote", 1)


def test_the_application_under_test_calls(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUOTES, QUOTING, module="quote_handlers")
    with running_sync(path) as shop, shop.publisher() as publisher:
        assert publisher.call("quotes", 2, id="q-1", timeout="2m") == {"price": 4.0, "for": "q-1"}
        with pytest.raises(NoAnswer):
            publisher.call("nobody", 2)
        with pytest.raises(NoAnswer):
            publisher.call("nobody", 3, timeout="2m", expires="1m")
        with pytest.raises(PublishFailed, match="cannot be delayed"):
            publisher.call("nobody", 4, delay="1m")
        assert [record.reason for record in shop.dead("nobody")] == ["expired", "expired"]
        first, second = shop.dead("nobody")
        assert second.at - first.at == timedelta(minutes=1)

    async def ask() -> None:
        async with running(path) as shop:
            assert (await shop.call("quotes", 1, timeout=120))["price"] == 2.0
            assert (await shop.async_publisher().call("quotes", 3, timeout="2m"))["price"] == 6.0

    asyncio.run(ask())


PARTITIONED = """
    queues: {orders: {partitions: 4, partition_by: customer}}
    subscribers: {ship: {from: orders, handler: shop_handlers:ship, retry: {attempts: 2, delay: 5m}}}
    """


def test_a_queue_with_partitions_is_one_queue(tmp_path: Path) -> None:
    """Its dead letters are those of the queue, and a retry holds back its own key only."""
    with running_sync(write_project(tmp_path, PARTITIONED, HANDLERS), now=NIGHT) as shop:
        for customer, order in (("a", 13), ("a", 1), ("b", 2)):
            shop.publish("orders", {"customer": customer, "order": order}, id=f"{customer}-{order}")
        shop.until_idle()
        assert [each.message_id for each in shop.handled("ship")] == ["b-2", "a-1"]
        (dead,) = shop.dead("orders")
        assert (dead.message_id, dead.queue, dead.to) == ("a-13", "orders", "orders.dead")
        assert [each.queue for each in shop.retried()] == ["orders"]
        with pytest.raises(PublishFailed, match="no key for a partition"):
            shop.publish("orders", {"order": 3})


def test_a_delayed_message_arrives_in_the_partition_of_its_key(tmp_path: Path) -> None:
    with running_sync(write_project(tmp_path, PARTITIONED, HANDLERS), now=NIGHT) as shop:
        with shop.publisher() as publisher:
            publisher.publish("orders", {"customer": "a", "order": 1}, id="later", delay="1h")
        shop.advance("59m")
        assert shop.handled("ship") == []
        shop.advance("2m")
        assert [each.message_id for each in shop.handled("ship")] == ["later"]


DELAYED = """
    queues: {reminders: }
    subscribers:
      remind: {from: reminders, handler: shop_handlers:ship, concurrency: 1, prefetch: 1, reply: false}
    """


def test_a_delayed_message_arrives_in_virtual_time_and_expires_after_its_delay(tmp_path: Path) -> None:
    """The second one waits for its handler for longer than it may."""
    project = write_project(tmp_path, DELAYED, HANDLERS)
    with running_sync(project, now=NIGHT, replace={"remind": Replacement(takes="10s")}) as shop:
        shop.publish("reminders", Publish({"order": 1}, delay="30d", id="r-1"))
        shop.publish("reminders", Publish({"order": 2}, delay="30d", expires="5s", id="r-2"))
        due = NIGHT + timedelta(days=30)
        assert [each.arrives for each in shop.records] == [due, due]
        shop.until_idle()
        (handled,), (dead,) = shop.handled("remind"), shop.dead("reminders")
        assert (handled.message_id, handled.at) == ("r-1", due + timedelta(seconds=10))
        assert (dead.message_id, dead.reason, dead.at) == ("r-2", "expired", due + timedelta(seconds=10))


def test_a_plain_test_is_told_the_other_context_manager(tmp_path: Path) -> None:
    with (
        pytest.raises(TypeError, match=r"write `with running_sync\(…\)` here, or `async with` in an `async def`"),
        running(write_project(tmp_path, SHOP, HANDLERS)),
    ):
        pass
