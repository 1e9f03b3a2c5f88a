"""The partition of a message: the documented rule, which publishers in other languages follow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.errors import PublishFailed
from runner.message import Address, Envelope
from runner.pipeline.codec import encode
from runner.pipeline.partitioning import Partitioning

ROOT = Path(__file__).resolve().parents[3]
HOW_TO = (ROOT / "docs" / "how-to" / "keep-order-over-machines.md").read_text("utf-8")
VECTORS = [
    (key, int(checksum), int(partition))
    for key, checksum, partition in re.findall(r"^\| `(.+?)` \| \d+ \| (\d+) \| (\d) \|$", HOW_TO, re.MULTILINE)
]


def partitioning(count: int = 8) -> Partitioning:
    return Partitioning("orders", count, "customer.id")


def message(key: object) -> Envelope:
    return Envelope(encode({"customer": {"id": key}})[0])


def test_the_documented_vectors_hold() -> None:
    """They are read from the page. Text, numbers, true and text outside of ASCII are among them."""
    assert len(VECTORS) >= 5
    for written, checksum, partition in VECTORS:
        key = {"42": 42, "true": True}.get(written, written)
        assert partitioning().address_of(message(key)) == Address("", f"orders.{partition}"), written
        assert checksum % 8 == partition


def test_a_number_and_its_text_are_one_key() -> None:
    """A publisher that has the key as text finds the same partition."""
    assert partitioning(7).address_of(message(42)) == partitioning(7).address_of(message("42"))


@pytest.mark.parametrize("body", [b"", b"\xff", b"not JSON", b"{}", b'{"customer": {"id": null}}'])
def test_a_message_without_a_key_has_no_partition(body: bytes) -> None:
    with pytest.raises(PublishFailed, match=r"no key for a partition of \"orders\": `customer.id` must be") as failed:
        partitioning().address_of(Envelope(body))
    assert failed.value.reason == "invalid"


@pytest.mark.parametrize("key", [1.0, [1], {"a": 1}])
def test_what_languages_write_differently_is_no_key(key: object) -> None:
    with pytest.raises(PublishFailed):
        partitioning().address_of(message(key))


def test_partitions_of_an_earlier_number_belong_to_the_queue_too() -> None:
    assert partitioning(4).has("orders.11")
    assert not any(map(partitioning(4).has, ("orders", "orders.dead", "orders.x.1", "ordersX1")))
