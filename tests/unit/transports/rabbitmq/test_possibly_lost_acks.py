"""Redeliveries of messages whose acknowledgement, or whose outcome, the broker may not have read."""

from __future__ import annotations

import asyncio
from typing import Any

from runner import message as names
from runner.message import Envelope
from runner.outcome import Retry
from runner.transports.base import Delivery, SubscriptionOptions
from runner.transports.rabbitmq.possibly_lost_acks import (
    MAX_POSSIBLY_LOST,
    POSSIBLY_LOST_S,
    MessageKey,
    PossiblyLostAcks,
    message_key,
)
from tests.deliveries import delivery_of
from tests.unit.transports.virtual_time import virtual_time

OPTIONS = SubscriptionOptions(queue="q", prefetch=10, dead_letter=None, wait_prefix="retry")
RETRY = Retry(after_s=1.0, error_type="Error", error="")


def redelivery(message_id: str | None = "one", **headers: Any) -> Delivery:
    envelope = Envelope(b"order", message_id=message_id, headers=headers)
    return delivery_of(envelope, OPTIONS, is_redelivered=True, failed_deliveries=1)


def key(delivery: Delivery) -> MessageKey:
    found = message_key(delivery)
    assert found is not None
    return found


def test_another_attempt_of_a_message_is_not_the_one_that_was_acknowledged() -> None:
    """Nor is one that was replayed: they carry the same id and the same body."""
    headers: list[dict[str, Any]] = [
        {},
        {names.ATTEMPT: 2},
        {names.ATTEMPT: 3},
        {names.REPLAYS: 1},
        {names.REPLAYS: 1, names.ATTEMPT: 2},
        {names.REASON: "exhausted", names.ATTEMPT: 2},
        {names.REASON: "exhausted", names.ATTEMPT: 2, names.FIRST_FAILED_AT: "2026-11-30T12:00:00+00:00"},
    ]
    keys = set()
    for each in headers:
        keys.add(message_key(redelivery(**each)))
    assert len(keys) == len(headers)


def test_a_message_without_an_id_is_told_from_no_other() -> None:
    assert message_key(redelivery(None)) is None


@virtual_time
async def test_each_lost_ack_explains_one_redelivery() -> None:
    acks = PossiblyLostAcks()
    acks.add([key(redelivery()), key(redelivery())])
    assert [acks.take(redelivery()) for _ in range(3)] == [True, True, False]
    assert not acks.take(redelivery("other"))


@virtual_time
async def test_a_lost_ack_explains_nothing_an_hour_later() -> None:
    acks = PossiblyLostAcks()
    acks.add([key(redelivery())])
    await asyncio.sleep(POSSIBLY_LOST_S + 1)
    assert not acks.take(redelivery())


def test_an_outcome_is_returned_once() -> None:
    """A dead letter that was moved back looks like the redelivery of its original."""
    acks = PossiblyLostAcks()
    acks.remember_outcome(redelivery(), RETRY)
    assert acks.take_outcome(redelivery()) is RETRY
    assert acks.take_outcome(redelivery()) is None


@virtual_time
async def test_what_is_remembered_is_bounded() -> None:
    acks = PossiblyLostAcks()
    for number in range(MAX_POSSIBLY_LOST + 1):
        acks.remember_outcome(redelivery(f"{number}"), RETRY)
    assert acks.take_outcome(redelivery("0")) is None
    assert acks.take_outcome(redelivery("1")) is RETRY
    for number in range(10 * MAX_POSSIBLY_LOST + 1):
        acks.add([key(redelivery(f"{number}"))])
    assert not acks.take(redelivery("0"))
    assert acks.take(redelivery("1"))
