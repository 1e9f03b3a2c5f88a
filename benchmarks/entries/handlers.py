"""The handlers and producers that `runner up` runs for the benchmarks. They count, and do nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from benchmarks.entries.job import body
from benchmarks.ledger import from_environment

ledger = from_environment()
COUNT = int(os.environ["BENCH_COUNT"])
PAUSE_S = float(os.environ.get("BENCH_PAUSE_S", "0"))


async def consume(payload: dict[str, Any]) -> None:
    """Count one message."""
    ledger.note(payload["number"])


def consume_in_thread(payload: dict[str, Any]) -> None:
    """Count one message, in a thread."""
    ledger.note(payload["number"])


async def hop(payload: dict[str, Any]) -> dict[str, Any]:
    """Count one message and pass it on."""
    ledger.note(payload["number"])
    return payload


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
        yield body(number)
        ledger.note(number)
