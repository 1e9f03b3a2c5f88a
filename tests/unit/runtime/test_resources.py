"""Resources are opened in order and closed in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from runner.runtime.resources import ResourceFailed
from tests.unit.runtime.running import Run, numbers, one_queue, run


def test_resources_are_opened_in_order_and_closed_in_reverse() -> None:
    """Of every kind that a factory can make; handlers and producers get them by name."""
    record = Run()

    @contextmanager
    def files(name: str) -> Iterator[str]:
        record.note(f"open {name}")
        yield f"<{name}>"
        record.note(f"close {name}")

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        record.note("open pool")
        yield "<pool>"
        record.note("close pool")

    async def client() -> str:
        record.note("open client")
        return "<client>"

    def produce(client: str) -> list[str]:
        return [client]

    async def handle(text: str, pool: str, files: str) -> None:
        record.note((text, pool, files))

    text = "resources: {files: {factory: 'h:files', with: {name: f}}, pool: 'h:pool', client: 'h:client'}\n"
    handlers = {"files": files, "pool": pool, "client": client, "produce": produce, "handle": handle}
    run(text + one_queue("retry: none"), handlers, record)
    assert record.things == [
        "open f",
        "open pool",
        "open client",
        ("<client>", "<pool>", "<f>"),
        "close pool",
        "close f",
    ]


def test_a_factory_that_fails_stops_the_start() -> None:
    """With its own error, before anything is consumed, and closes what was open."""
    record = Run()

    @contextmanager
    def good() -> Iterator[int]:
        yield 1
        record.note("closed")

    def bad() -> None:
        raise ConnectionError("no database")

    async def handle(text: str) -> None:
        record.note("handled")

    text = "resources: {good: 'h:good', bad: 'h:bad'}\n" + one_queue("retry: none")
    with pytest.raises(ResourceFailed, match='"bad" cannot be opened: ConnectionError: no database'):
        run(text, {"good": good, "bad": bad, "produce": numbers(1), "handle": handle}, record)
