"""What was handled is remembered for a while; two deliveries with one key are never handled side by side."""

import pytest

from runner.message import REPLAYS, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.codec import identity_reader
from runner.pipeline.model import Remembering
from runner.runtime.deduplication import Deduplicator, identity
from runner.runtime.store import MemoryStore
from tests.unit.transports.virtual_time import virtual_time


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
    assert deduplicator().claim_of(Envelope(b"{}")) is None


def key_of(handled: Deduplicator, body: bytes, id: str | None = None) -> str:
    claim = handled.claim_of(Envelope(body, message_id=id))
    assert claim is not None
    return claim.key


def test_a_message_is_the_value_at_the_key_whatever_its_id_and_the_rest_of_its_body_are() -> None:
    handled = deduplicator("order.id")
    first = key_of(handled, b'{"order":{"id":1}}', "a")
    assert first == key_of(handled, b'{"order": {"id": 1, "n": 2}}') != key_of(handled, b'{"order":{"id":"1"}}')
    assert first.startswith("shop.charge:")
    assert len(key_of(handled, b'{"order":{"id":"%s"}}' % (b"x" * 10_000))) == len(first)


def test_the_order_of_keys_in_a_map_does_not_matter() -> None:
    handled = deduplicator("order")
    assert key_of(handled, b'{"order":{"a":1,"b":2}}') == key_of(handled, b'{"order":{"b":2,"a":1}}')


@pytest.mark.parametrize("body", [b'{"order":{}}', b'{"order":1}', b'{"order":{"id":null}}', b"[]", b"text", b"\xff"])
def test_a_message_without_the_key_is_invalid(body: bytes) -> None:
    """Handled without `dedupe`, an order could be charged twice."""
    with pytest.raises(InvalidMessage):
        deduplicator("order.id").claim_of(Envelope(body, message_id="1"))


@virtual_time
async def test_only_what_was_done_is_a_duplicate_and_a_replay_is_let_through_once() -> None:
    handled = deduplicator()
    message = Envelope(b"a", message_id="1")
    replay = message._replace(headers={REPLAYS: 1})
    claim, other = handled.claim_of(message), handled.claim_of(message)
    assert claim is not None
    assert other is not None
    assert await handled.claim(claim, message) is True
    assert await handled.claim(other, message) is False, "two deliveries of one message are not handled together"
    await handled.release(claim)
    assert await handled.claim(other, message) is True
    await handled.finish(other, message)
    assert await handled.claim(claim, message) is None
    assert await handled.claim(claim, replay) is True
    await handled.finish(claim, replay)
    assert await handled.claim(other, replay) is None
    assert await handled.claim(other, message) is None
    assert await handled.claim(other, message._replace(headers={REPLAYS: 2})) is True
