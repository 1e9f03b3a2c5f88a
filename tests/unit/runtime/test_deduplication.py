"""What was handled is remembered for a while; two deliveries with one key are never handled side by side."""

import asyncio

import pytest

from runner.message import REPLAYS, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.codec import identity_reader
from runner.pipeline.model import Remembering
from runner.runtime.deduplication import Deduplicator, identity
from runner.runtime.store import MemoryStore
from tests.unit.transports.virtual_time import run_virtually


def deduplicator(key: str | None = None) -> Deduplicator:
    options = Remembering(10, key_of=identity_reader(key) if key else None)
    return Deduplicator(options, "shop.charge", MemoryStore())


def test_a_message_is_its_id_and_its_body() -> None:
    """The same id with another body is another message, so that a reused id does not drop a message."""
    assert identity(Envelope(b"a", message_id="1")) == identity(Envelope(b"a", message_id="1", type="x"))
    assert identity(Envelope(b"a", message_id="1")) != identity(Envelope(b"b", message_id="1"))
    assert identity(Envelope(b"a", message_id="1")) != identity(Envelope(b"a", message_id="2"))
    assert identity(Envelope(b"a\0", message_id="1")) != identity(Envelope(b"a", message_id="\x001"))


def test_without_an_id_no_message_is_a_duplicate() -> None:
    assert deduplicator().key(Envelope(b"{}")) is None


def test_a_message_is_the_value_at_the_key_whatever_its_id_and_the_rest_of_its_body_are() -> None:
    key = deduplicator("order.id").key
    same = [
        key(Envelope(body, message_id=id))
        for id, body in (("a", b'{"order":{"id":1}}'), (None, b'{"order": {"id": 1, "n": 2}}'))
    ]
    assert same[0] == same[1] != key(Envelope(b'{"order":{"id":"1"}}'))
    assert (same[0] or "").startswith("shop.charge:")
    long = key(Envelope(b'{"order":{"id":"%s"}}' % (b"x" * 10_000)))
    assert len(long or "") < 100


def test_the_order_of_keys_in_a_map_does_not_matter() -> None:
    key = deduplicator("order").key
    assert key(Envelope(b'{"order":{"a":1,"b":2}}')) == key(Envelope(b'{"order":{"b":2,"a":1}}'))


@pytest.mark.parametrize("body", [b'{"order":{}}', b'{"order":1}', b'{"order":{"id":null}}', b"[]", b"text", b"\xff"])
def test_a_message_without_the_key_is_invalid(body: bytes) -> None:
    """Handled without `dedupe`, an order could be charged twice."""
    with pytest.raises(InvalidMessage):
        deduplicator("order.id").key(Envelope(body, message_id="1"))


def test_only_what_was_done_is_a_duplicate_and_a_replay_is_let_through_once() -> None:
    async def main() -> None:
        handled = deduplicator()
        message = Envelope(b"a", message_id="1")
        replay = message._replace(headers={REPLAYS: 1})
        key = handled.key(message) or ""
        assert await handled.claim(key, message) is True
        await handled.release(key)
        assert await handled.claim(key, message) is True
        await handled.finish(key, message)
        assert await handled.claim(key, message) is None
        assert await handled.claim(key, replay) is True
        await handled.finish(key, replay)
        assert await handled.claim(key, replay) is None
        assert await handled.claim(key, message) is None
        assert await handled.claim(key, message._replace(headers={REPLAYS: 2})) is True

    run_virtually(main)


def test_two_deliveries_of_one_message_do_not_run_side_by_side() -> None:
    """The second waits until it is known how the first ended; other messages do not wait."""
    running: list[str] = []

    async def main() -> None:
        handled = deduplicator()

        async def one(key: str) -> None:
            async with handled.exclusive(key):
                assert key not in running
                running.append(key)
                await asyncio.sleep(1)
                running.remove(key)

        await asyncio.gather(one("a"), one("a"), one("a"), one("b"))

    assert run_virtually(main) == 3.0
