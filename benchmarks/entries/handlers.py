"""The handlers and producers that `runner up` runs for the benchmarks. They count, and do nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from benchmarks.entries.job import Job, body
from benchmarks.entries.model import Order
from benchmarks.ledger import Stopwatch, from_environment
from runner import Message

ledger = from_environment()
COUNT = int(os.environ["BENCH_COUNT"])
BODY_BYTES = Job.from_environment().body_bytes if "BENCH_JOB" in os.environ else 0
PAUSE_S = float(os.environ.get("BENCH_PAUSE_S", "0"))


async def consume(payload: dict[str, Any]) -> None:
    """Count one message."""
    ledger.note(payload["number"])


async def consume_model(order: Order) -> None:
    """Count one message that comes as a model."""
    ledger.note(order.number)


def consume_in_thread(payload: dict[str, Any]) -> None:
    """Count one message, in a thread."""
    ledger.note(payload["number"])


async def hop(payload: dict[str, Any]) -> dict[str, Any]:
    """Count one message and pass it on."""
    ledger.note(payload["number"])
    return payload


async def clock(payload: dict[str, Any]) -> None:
    """Note how long a message was under way."""
    assert isinstance(ledger, Stopwatch)
    ledger.clock(payload["number"], payload["sent"])


async def consume_second_time(payload: dict[str, Any], message: Message) -> None:
    """Fail the first time; count one message when it comes back."""
    if message.attempt == 1:
        if not ledger.is_counting:
            ledger.begin()
        raise ValueError("the first attempt fails")
    ledger.note(payload["number"])


async def consume_slowly(payload: dict[str, Any]) -> None:
    """Count one message after a pause."""
    await asyncio.sleep(PAUSE_S)
    ledger.note(payload["number"])


async def produce() -> AsyncIterator[dict[str, object]]:
    """Start the clock and bring the messages in."""
    ledger.begin()
    for number in range(COUNT):
        yield body(number)


def produce_in_thread() -> Iterator[dict[str, object]]:
    """Start the clock and bring the messages in, from a plain generator."""
    ledger.begin()
    for number in range(COUNT):
        yield body(number)


async def produce_and_note() -> AsyncIterator[dict[str, object]]:
    """Start the clock, bring the messages in and note each: for a run where nobody handles them."""
    ledger.begin()
    for number in range(COUNT):
        yield body(number, BODY_BYTES)
        ledger.note(number)
