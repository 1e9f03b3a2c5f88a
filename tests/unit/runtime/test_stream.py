"""The bookkeeping of a stream: what arrives, what is settled, and where the next reader has to begin."""

from __future__ import annotations

import pytest

from runner.message import Envelope
from runner.outcome import Outcome
from runner.runtime import stream
from runner.runtime.stream import OFFSET, StreamReading
from runner.transports.base import Delivery, DeliverySubscription, StreamOffset, SubscriptionOptions

OPTIONS = SubscriptionOptions(queue="history", prefetch=10, dead_letter=None, wait_prefix="shop.retry")


class Channel(DeliverySubscription):
    """A channel of the broker, which sends a message for each acknowledgement."""

    def __init__(self) -> None:
        self.is_open = True
        self.acked: list[int] = []

    def deliver(self, reading: StreamReading, *offsets: object) -> None:
        for offset in offsets:
            reading.receive(delivery_at(self, offset))
            reading.saved = reading.position
            reading.pass_on()

    def ack(self, delivery: Delivery, *, is_handled: bool = True) -> bool:
        self.acked.append(delivery.delivery_tag)
        return True

    async def release(self, delivery: Delivery) -> bool:
        raise AssertionError("nothing of a stream goes back")

    def remember_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        raise AssertionError("a stream has no redeliveries")


def delivery_at(channel: Channel, offset: object) -> Delivery:
    return Delivery(
        Envelope(b"1", headers={} if offset is None else {OFFSET: offset}),
        OPTIONS,
        exchange="",
        routing_key="history",
        is_redelivered=False,
        failed_deliveries=0,
        delivery_tag=offset,
        subscription=channel,
    )


class Reader:
    """A subscriber that holds what it gets."""

    def __init__(self, begin: StreamOffset = "first", failed: int = 0) -> None:
        self.got: list[Delivery] = []
        self.channel = Channel()
        self.reading = StreamReading(begin, self.got.append, failed)

    def settle(self, *offsets: int) -> None:
        for offset in offsets:
            (delivery,) = [each for each in self.got if each.delivery_tag == offset and not each.is_settled]
            delivery.mark_settled()
            delivery.subscription.ack(delivery)


def test_the_position_is_the_lowest_offset_that_is_not_settled() -> None:
    reader = Reader()
    assert (reader.reading.position, reader.reading.next_offset()) == (None, "first")
    reader.channel.deliver(reader.reading, 3, 4, 9)
    assert (reader.reading.position, reader.reading.next_offset()) == (3, 10)
    reader.settle(4)
    assert reader.reading.position == 3
    reader.settle(3)
    assert reader.reading.position == 9
    reader.settle(9)
    assert (reader.reading.position, reader.reading.next_offset()) == (10, 10)
    assert reader.channel.acked == [4, 3, 9]


def test_after_a_lost_channel_it_reads_on_and_what_is_held_is_settled_as_before() -> None:
    """A chunk may begin before the offset that was asked for: what was there before is only acknowledged."""
    reader, other = Reader(), Channel()
    reader.channel.deliver(reader.reading, 0, 1)
    other.deliver(reader.reading, 0, 1, 2)
    assert [each.delivery_tag for each in reader.got] == [0, 1, 2]
    assert other.acked == [0, 1]
    reader.settle(0, 2)
    assert (reader.reading.position, reader.channel.acked, other.acked) == (1, [0], [0, 1, 2])


async def test_what_is_released_comes_again_unless_the_subscriber_stops() -> None:
    reader = Reader()
    reader.channel.deliver(reader.reading, 0, 1)
    first, _ = reader.got
    first.mark_settled()
    first.attempt = 2
    assert await first.subscription.release(first)
    again = reader.got[2]
    assert (again.delivery_tag, again.attempt, again.is_settled) == (0, 2, False)
    reader.settle(1)
    assert reader.reading.position == 0
    reader.reading.is_taking = False
    again.mark_settled()
    await again.subscription.release(again)
    reader.channel.deliver(reader.reading, 2)
    assert len(reader.got) == 3
    assert (reader.reading.position, reader.reading.next_offset()) == (0, 2)


def test_it_does_not_read_far_beyond_a_message_that_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_AHEAD", 3)
    reader = Reader()
    reader.channel.deliver(reader.reading, 0, 1, 2, 3)
    reader.settle(1, 2, 3)
    assert reader.channel.acked == []
    reader.settle(0)
    assert reader.channel.acked == [1, 2, 3, 0]


def test_a_queue_without_offsets_is_no_stream() -> None:
    reader = Reader()
    with pytest.raises(Exception, match='queue "history" of the broker is not a stream'):
        reader.channel.deliver(reader.reading, None)


def save(reading: StreamReading) -> None:
    """Do what the subscription does as soon as a message waits for it."""
    assert reading.must_save.is_set()
    reading.must_save.clear()
    reading.saved = reading.position
    reading.pass_on()


def receive(reader: Reader, *offsets: int) -> list[int]:
    """Deliver without a save; return the offsets that the subscriber has got in all."""
    for offset in offsets:
        reader.reading.receive(delivery_at(reader.channel, offset))
    return [each.delivery_tag for each in reader.got]


def test_the_first_message_waits_until_it_is_noted_that_this_leader_tries_it() -> None:
    """A message that ends the process at once counts, too."""
    reader = Reader(begin=5, failed=2)
    assert receive(reader, 5, 6) == []
    save(reader.reading)
    assert receive(reader, 7) == [5, 6, 7]
    assert [each.failed_deliveries for each in reader.got] == [2, 0, 0]
    assert (reader.reading.first, reader.reading.failed) == (5, 2)


def test_after_three_leaders_that_have_ended_messages_are_handled_alone() -> None:
    """Each waits until the position of the one before is saved, so the next leader begins at the one that is guilty."""
    reader = Reader(begin=5, failed=3)
    receive(reader, 5, 6)
    save(reader.reading)
    assert receive(reader, 7) == [5]
    assert reader.got[0].is_poison_suspect
    reader.settle(5)
    assert receive(reader) == [5]
    save(reader.reading)
    assert receive(reader) == [5, 6]
    reader.reading.is_taking = False
    reader.settle(6)
    assert (receive(reader), reader.reading.position) == ([5, 6], 7)


def test_crashes_count_for_the_message_that_they_were_counted_for() -> None:
    """The broker may have dropped it since."""
    reader = Reader(begin=5, failed=30)
    receive(reader, 9)
    save(reader.reading)
    assert (reader.got[0].failed_deliveries, reader.got[0].is_poison_suspect) == (0, False)
    assert (reader.reading.first, reader.reading.failed) == (9, 0)


def test_it_is_careful_for_some_messages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CAREFUL_MESSAGES", 2)
    reader = Reader(begin=0, failed=3)
    receive(reader, 0, 1, 2, 3)
    save(reader.reading)
    reader.settle(0)
    save(reader.reading)
    assert receive(reader) == [0, 1, 2, 3]
