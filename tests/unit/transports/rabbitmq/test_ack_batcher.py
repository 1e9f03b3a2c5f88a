"""Acknowledgements in batches: never more than what was settled, and at the end all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.transports.rabbitmq.ack_batcher import AckBatcher


class Channel:
    """The broker's side: what is unsettled. It closes the channel over a tag that it does not know."""

    def __init__(self) -> None:
        self.unsettled: list[int] = []
        self.acked: set[int] = set()
        self.frames = 0

    def read(self, frames: list[tuple[int, bool]]) -> None:
        for tag, multiple in frames:
            self.ack(tag, multiple)

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.unsettled, "PRECONDITION_FAILED - unknown delivery tag"
        covered = [each for each in self.unsettled if each == tag or (multiple and each < tag)]
        self.acked.update(covered)
        self.unsettled = [each for each in self.unsettled if each not in covered]
        self.frames += 1


STEPS = st.lists(st.tuples(st.sampled_from(["deliver", "ack", "release", "take"]), st.integers(0, 50)))


@given(STEPS, st.integers(0, 8))
def test_only_what_was_settled_is_acknowledged_and_all_of_it(steps: list[tuple[str, int]], batch: int) -> None:
    channel = Channel()
    acked: set[int] = set()
    released: set[int] = set()

    acks = AckBatcher(batch)
    tag, open_tags = 0, []
    for what, number in steps:
        if what == "deliver":
            tag += 1
            acks.note(tag)
            channel.unsettled.append(tag)
            open_tags.append(tag)
        elif what == "ack" and open_tags:
            done = open_tags.pop(number % len(open_tags))
            acked.add(done)
            if acks.ack(done):
                channel.read(acks.take())
        elif what == "release" and open_tags:
            back = open_tags.pop(number % len(open_tags))
            released.add(back)
            acks.forget(back)
            channel.unsettled.remove(back)
        elif what == "take":
            channel.read(acks.take())
            assert channel.acked == acked
        assert channel.acked <= acked
        assert acks.waiting == len(acked - channel.acked)
    channel.read(acks.take())
    assert channel.acked == acked
    assert set(channel.unsettled) == set(open_tags)
    assert not channel.acked & released


def test_a_full_batch_is_one_frame() -> None:
    channel, acks = Channel(), AckBatcher(25)
    for tag in range(1, 101):
        acks.note(tag)
        channel.unsettled.append(tag)
    for tag in range(1, 101):
        if acks.ack(tag):
            channel.read(acks.take())
    assert (channel.frames, channel.unsettled) == (4, [])


def test_one_slow_delivery_does_not_hold_the_others_back() -> None:
    channel, acks = Channel(), AckBatcher(5)
    for tag in range(1, 11):
        acks.note(tag)
        channel.unsettled.append(tag)
    for tag in range(2, 11):
        acks.ack(tag)
    channel.read(acks.take())
    assert channel.unsettled == [1]
    acks.ack(1)
    channel.read(acks.take())
    assert channel.unsettled == []


def test_deliveries_that_pass_a_slow_one_leave_nothing_behind() -> None:
    """A handler may take hours. Its acknowledgement and those after it are still right."""
    count = 20_000
    unsettled: set[int] = set()

    def write(tag: int, multiple: bool) -> None:
        assert tag in unsettled
        for each in [each for each in unsettled if each == tag or (multiple and each < tag)]:
            unsettled.remove(each)

    acks = AckBatcher(5)

    def ack(tag: int) -> None:
        if acks.ack(tag):
            write_all()

    def write_all() -> None:
        for tag, multiple in acks.take():
            write(tag, multiple)

    for tag in range(1, count):
        acks.note(tag)
        unsettled.add(tag)
        if tag > 1 and tag % 1000:
            ack(tag)
    write_all()
    assert len(acks._order) + len(acks._alone) <= count // 5
    assert unsettled == {1, *range(1000, count, 1000)}
    for tag in sorted(unsettled):
        ack(tag)
    write_all()
    assert unsettled == set()
