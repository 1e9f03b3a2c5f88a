"""A dead letter that is tried here: it says what its handler would have published, and publishes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from runner import Publish, log
from runner.message import Envelope
from runner.operations.dead_letters import DeadLetterMessage
from runner.operations.local_replay import LocalReplay, ReplayResult
from tests.unit.runtime.running import pipeline

TEXT = "queues: {orders: , bills: }\nsubscribers: {bill: {from: orders, handler: 'h:handle', to: bills}}\n"


def dead_letter() -> DeadLetterMessage:
    return DeadLetterMessage(
        queue="orders.dead",
        id="m1",
        envelope=Envelope(b'{"n": 1}', "m1"),
        by="runner",
        reason="exhausted",
        error_type="ValueError",
        error="",
        attempts=3,
        since=None,
        origin="orders",
        claimed="orders",
        exchange="",
        routing_key="orders",
        subscriber="bill",
        replays=0,
    )


def replayed(handle: Any) -> ReplayResult:
    log.configure(level="error")

    async def main() -> ReplayResult:
        async with LocalReplay([pipeline(TEXT, {"handle": handle})]) as replay:
            return await replay.attempt(dead_letter())

    return asyncio.run(main())


def test_results_are_counted() -> None:
    async def handle(order: dict[str, int]) -> list[Publish]:
        return [Publish(order), Publish(order), Publish(order)]

    result = replayed(handle)
    assert (result.published, result.sentence) == (3, "handled by bill, 3 published")
