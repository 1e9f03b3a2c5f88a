"""One delivery: duplicates, and the context variables that its handler sets, with virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import structlog

from runner import Message
from runner.message import Envelope
from tests.unit.runtime.running import Run, one_queue, run

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def produce() -> list[str]:
    return ["a", "b", "c"]


def _handlers(record: Run) -> dict[str, Callable[..., Any]]:
    def begin(order: Any) -> None:
        record.notes.append((0.0, tenant.get()))  # also from a thread
        tenant.set(f"tenant of {order}")
        structlog.contextvars.bind_contextvars(**{f"order_{order}": True})

    async def handle(order: str) -> None:
        begin(order)

    async def handle_slowly(order: str) -> None:
        begin(order)
        await asyncio.sleep(1)
        assert tenant.get() == f"tenant of {order}"

    async def yields(order: str) -> AsyncIterator[None]:
        begin(order)
        yield None

    def plain(order: str) -> None:
        begin(order)

    return {"at once": handle, "slowly": handle_slowly, "as a generator": yields, "in a thread": plain}


@pytest.mark.parametrize("way", ["at once", "slowly", "as a generator", "in a thread"])
def test_the_next_message_sees_nothing_of_it(way: str) -> None:
    record = Run()
    run(one_queue("concurrency: 1"), {"produce": produce, "handle": _handlers(record)[way]}, record)
    assert record.things == ["nobody"] * 3
    structlog.contextvars.clear_contextvars()


def test_the_next_batch_sees_nothing_of_it() -> None:
    record = Run()

    async def handle(orders: list[str]) -> None:
        record.note(tenant.get())
        tenant.set(orders[0])

    run(one_queue("concurrency: 1, batch: {size: 2, wait: 1s}"), {"produce": produce, "handle": handle}, record)
    assert record.things == ["nobody"] * 2


def test_what_the_handler_binds_is_on_the_line_of_its_own_message() -> None:
    record = Run()
    run(one_queue("concurrency: 1"), {"produce": produce, "handle": _handlers(record)["at once"]}, record)
    bound = [sorted(name for name in line if name.startswith("order_")) for line in record.events("message.handled")]
    assert bound == [["order_a"], ["order_b"], ["order_c"]]


def test_a_duplicate_is_acknowledged_without_a_second_call() -> None:
    """Within the window; the same id with another body is another message; failed work is not done work."""
    record = Run()

    has_failed = False

    async def handle(order: dict[str, int], message: Message) -> None:
        nonlocal has_failed
        record.note((order["n"], message.attempt))
        await asyncio.sleep(1)
        if order["n"] == 1 and not has_failed:
            has_failed = True
            raise ValueError("once")

    copies = [("a", 0), ("a", 0), ("b", 1), ("b", 1), ("a", 2), (None, 3), (None, 3)]
    text = one_queue("dedupe: {window: 1h}, retry: 3", producer=None)
    run(text, {"handle": handle}, record, preload=[Envelope(b'{"n":%d}' % n, message_id=i) for i, n in copies])
    assert [n for n, _ in record.things].count(0) == 1
    # The second copy of the failed one has waited, is called next, and makes the retry of the first a duplicate.
    assert [thing for thing in record.things if thing[0] == 1] == [(1, 1), (1, 1)]
    assert [n for n, _ in record.things].count(2) == 1
    assert [n for n, _ in record.things].count(3) == 2
    assert len(record.events("message.handled", duplicate=True)) == 2


def test_without_dedupe_every_copy_is_handled() -> None:
    """It is asked for, because remembering costs."""
    record = Run()

    async def handle(order: dict[str, int]) -> None:
        record.note(order["n"])

    text = one_queue(producer=None)
    run(text, {"handle": handle}, record, preload=[Envelope(b'{"n":1}', message_id="a")] * 2)
    assert record.things == [1, 1]
