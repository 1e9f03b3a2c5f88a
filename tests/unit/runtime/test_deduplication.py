"""What was handled is remembered for a while."""

import asyncio
import io
import json

from runner import log
from runner.message import Envelope
from runner.runtime.deduplication import Deduplicator, identity
from tests.unit.transports.virtual_time import run_virtually


def test_a_message_is_its_id_and_its_body() -> None:
    """The same id with another body is another message, so that a reused id does not drop a message."""
    assert identity(Envelope(b"a", message_id="1")) == identity(Envelope(b"a", message_id="1", type="x"))
    assert identity(Envelope(b"a", message_id="1")) != identity(Envelope(b"b", message_id="1"))
    assert identity(Envelope(b"a", message_id="1")) != identity(Envelope(b"a", message_id="2"))
    assert identity(Envelope(b"a\0", message_id="1")) != identity(Envelope(b"a", message_id="\x001"))


def test_the_window_ends() -> None:
    """And counts from the last time it was handled."""

    async def main() -> None:
        handled = Deduplicator(window_s=10)
        handled.add(b"a")
        await asyncio.sleep(9)
        assert b"a" in handled
        handled.add(b"a")
        await asyncio.sleep(9)
        assert b"a" in handled
        await asyncio.sleep(2)
        assert b"a" not in handled

    run_virtually(main)


def test_memory_is_bounded() -> None:
    """The oldest goes first."""

    async def main() -> None:
        handled = Deduplicator(window_s=10, limit=2)
        for key in (b"a", b"b", b"c"):
            handled.add(key)
        assert [key in handled for key in (b"a", b"b", b"c")] == [False, True, True]

    run_virtually(main)


def test_what_is_forgotten_before_its_window_is_over_is_said_once() -> None:
    """With the window that there really is; what has outlived its window is forgotten without a word."""
    out = io.StringIO()
    log.configure(format="json", stream=out)

    async def main() -> None:
        handled = Deduplicator(window_s=10, limit=2)
        for number, pause_s in enumerate((6, 6, 6, 4, 4, 1, 1)):
            assert ("dedupe.forgets" in out.getvalue()) == (number > 5)
            handled.add(bytes([number]))
            await asyncio.sleep(pause_s)

    run_virtually(main)
    (line,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (line["event"], line["level"], line["remembered"]) == ("dedupe.forgets", "warning", 2)
    assert line["asked_s"] == 10
    assert line["window_s"] < 10


def test_two_deliveries_of_one_message_do_not_run_side_by_side() -> None:
    """The second waits until it is known how the first ended; other messages do not wait."""
    running: list[bytes] = []

    async def main() -> None:
        handled = Deduplicator(window_s=10)

        async def one(key: bytes) -> None:
            async with handled.exclusive(key):
                assert key not in running
                running.append(key)
                await asyncio.sleep(1)
                running.remove(key)

        await asyncio.gather(one(b"a"), one(b"a"), one(b"a"), one(b"b"))

    assert run_virtually(main) == 3.0
