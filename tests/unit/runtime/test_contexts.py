"""What a handler leaves in context variables is gone with its message, and is on the lines of its own message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import structlog

from tests.unit.runtime.running import Run, run

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

PIPELINE = """
queues: {{q: }}
producers: {{p: {{handler: 'h:produce', to: q}}}}
subscribers: {{s: {{from: q, handler: 'h:handle', concurrency: 1{batch}}}}}
"""


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
    run(PIPELINE.format(batch=""), {"produce": produce, "handle": _handlers(record)[way]}, record)
    assert record.things == ["nobody"] * 3
    structlog.contextvars.clear_contextvars()


def test_the_next_batch_sees_nothing_of_it() -> None:
    record = Run()

    async def handle(orders: list[str]) -> None:
        record.note(tenant.get())
        tenant.set(orders[0])

    run(PIPELINE.format(batch=", batch: {size: 2, wait: 1s}"), {"produce": produce, "handle": handle}, record)
    assert record.things == ["nobody"] * 2


def test_what_the_handler_binds_is_on_the_line_of_its_own_message() -> None:
    record = Run()
    run(PIPELINE.format(batch=""), {"produce": produce, "handle": _handlers(record)["at once"]}, record)
    bound = [sorted(name for name in line if name.startswith("order_")) for line in record.events("message.handled")]
    assert bound == [["order_a"], ["order_b"], ["order_c"]]
