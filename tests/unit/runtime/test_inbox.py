"""One key at a time and in order, different keys side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.message import Envelope
from runner.pipeline.codec import key_reader
from runner.runtime.inbox import KeyedInbox
from runner.transports.base import Delivery, SubscriptionOptions
from tests.deliveries import delivery_of

OPTIONS = SubscriptionOptions(queue="q", prefetch=10, dead_letter=None, wait_prefix="w")


def delivery(payload: Any) -> Delivery:
    envelope = Envelope(json.dumps(payload).encode())
    return delivery_of(envelope, OPTIONS)


def payloads(deliveries: list[Delivery]) -> list[Any]:
    return [json.loads(item.envelope.body) for item in deliveries]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("id", b'{"id": 5}', 5),
        ("customer.id", b'{"customer": {"id": "x"}}', "x"),
        ("customer.id", b'{"customer": 5}', None),
        ("id", b"{}", None),
        ("id", b"[1]", None),
        ("id", b'{"id": [1, 2]}', "[1, 2]"),
    ],
)
def test_the_key_is_read_from_the_body(path: str, body: bytes, key: object) -> None:
    """By a dotted path; what does not have it shares a lane."""
    assert key_reader(path)(Envelope(body)) == key


def test_bodies_that_are_no_json_do_not_wait_for_one_another() -> None:
    """They will be dead-lettered; nothing orders them."""
    read = key_reader("id")
    assert read(Envelope(b"{")) != read(Envelope(b"{"))


def test_a_busy_key_holds_back_only_itself() -> None:
    """And continues where it stopped."""
    lanes = KeyedInbox(key_reader("k"))
    for payload in ({"k": 1, "n": 1}, {"k": 1, "n": 2}, {"k": 2, "n": 3}):
        lanes.put(delivery(payload))
    first, second = lanes.take(), lanes.take()
    assert payloads([first, second]) == [{"k": 1, "n": 1}, {"k": 2, "n": 3}]
    assert not lanes
    lanes.free(first)
    assert payloads([lanes.take()]) == [{"k": 1, "n": 2}]


def test_what_is_put_back_comes_first_again() -> None:
    """A retry keeps its place before all others of its key."""
    lanes = KeyedInbox(key_reader("k"))
    for number in range(3):
        lanes.put(delivery({"k": 1, "n": number}))
    first = lanes.take()
    lanes.put_back(first)
    order = []
    while lanes:
        item = lanes.take()
        order.append(item)
        lanes.free(item)
    assert [item["n"] for item in payloads(order)] == [0, 1, 2]


def test_what_waits_can_be_given_back() -> None:
    """All of it, each key in order."""
    lanes = KeyedInbox(key_reader("k"))
    for number in range(4):
        lanes.put(delivery({"k": number % 2, "n": number}))
    taken = lanes.take()
    assert [item["n"] for item in payloads(list(lanes.drain()))] == [2, 1, 3]
    lanes.free(taken)
    assert not lanes


@given(st.lists(st.integers(0, 3), max_size=40), st.randoms(use_true_random=False))
def test_each_key_keeps_its_order_whatever_happens(keys: list[int], random: Any) -> None:
    """Puts, takes, frees and retries in any order: per key, nothing is overtaken, and nothing is lost."""
    lanes = KeyedInbox(key_reader("k"))
    waiting = [delivery({"k": key, "n": number}) for number, key in enumerate(keys)]
    running: list[Delivery] = []
    done: list[Delivery] = []
    while waiting or running or lanes:
        steps = [step for step, can in (("put", waiting), ("take", lanes), ("end", running)) if can]
        match random.choice(steps):
            case "put":
                lanes.put(waiting.pop(0))
            case "take":
                running.append(lanes.take())
                busy = [item["k"] for item in payloads(running)]
                assert len(busy) == len(set(busy))
            case "end":
                item = running.pop(random.randrange(len(running)))
                if random.random() < 0.3:
                    lanes.put_back(item)
                else:
                    lanes.free(item)
                    done.append(item)
    for key in set(keys):
        numbers = [item["n"] for item in payloads(done) if item["k"] == key]
        assert numbers == [number for number, other in enumerate(keys) if other == key]
