"""Acknowledgements in batches: never more than what was settled, and at the end all of it."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from runner.transports.rabbitmq.ack_batcher import AckBatcher
from tests.unit.transports.virtual_time import run_virtually


class Channel:
    """The broker's side: what is unsettled. It closes the channel over a tag that it does not know."""

    def __init__(self) -> None:
        self.unsettled: list[int] = []
        self.acked: set[int] = set()
        self.frames = 0

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.unsettled, "PRECONDITION_FAILED - unknown delivery tag"
        covered = [each for each in self.unsettled if each == tag or (multiple and each < tag)]
        self.acked.update(covered)
        self.unsettled = [each for each in self.unsettled if each not in covered]
        self.frames += 1


STEPS = st.lists(st.tuples(st.sampled_from(["deliver", "ack", "release", "wait", "flush"]), st.integers(0, 50)))


@given(STEPS, st.integers(0, 8))
def test_only_what_was_settled_is_acknowledged_and_all_of_it(steps: list[tuple[str, int]], batch: int) -> None:
    channel = Channel()
    acked: set[int] = set()
    released: set[int] = set()

    async def main() -> None:
        acks = AckBatcher(batch, channel.ack)
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
                acks.ack(done)
            elif what == "release" and open_tags:
                back = open_tags.pop(number % len(open_tags))
                released.add(back)
                acks.forget(back)
                channel.unsettled.remove(back)
            elif what == "wait":
                await asyncio.sleep(0.01)
                assert channel.acked == acked, "nothing waits longer than a few milliseconds"
            elif what == "flush":
                acks.flush()
            assert channel.acked <= acked
        acks.flush()
        assert channel.acked == acked
        assert set(channel.unsettled) == set(open_tags)

    run_virtually(main)
    assert not channel.acked & released


def test_a_full_batch_is_one_frame() -> None:
    channel = Channel()

    async def main() -> None:
        acks = AckBatcher(25, channel.ack)
        for tag in range(1, 101):
            acks.note(tag)
            channel.unsettled.append(tag)
        for tag in range(1, 101):
            acks.ack(tag)

    run_virtually(main)
    assert (channel.frames, channel.unsettled) == (4, [])


def test_one_slow_delivery_does_not_hold_the_others_back() -> None:
    channel = Channel()

    async def main() -> None:
        acks = AckBatcher(5, channel.ack)
        for tag in range(1, 11):
            acks.note(tag)
            channel.unsettled.append(tag)
        for tag in range(2, 11):
            acks.ack(tag)
        await asyncio.sleep(0.01)
        assert channel.unsettled == [1]
        acks.ack(1)
        await asyncio.sleep(0.01)

    run_virtually(main)
    assert channel.unsettled == []
