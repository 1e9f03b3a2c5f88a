"""Lines of several writers come out whole, in as few pieces as possible, and never faster than they are read."""

from __future__ import annotations

import asyncio
import os
import threading

from runner.workers import line_mux
from runner.workers.line_mux import LineMux, forward


class Pipes:
    """Writers in threads, and all that comes out."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        self.losses: list[OSError] = []
        self.output = LineMux(write_end, self.losses.append)
        self.write_end = write_end

    def close(self) -> None:
        os.close(self.write_end)

    def all(self) -> bytes:
        with os.fdopen(self.read_end, "rb") as stream:
            return stream.read()


def feed(*pieces: bytes) -> int:
    """Return the end of a pipe to read, into which a thread writes the pieces and then closes it."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as stream:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[stream.write(rest) :]

    threading.Thread(target=write, daemon=True).start()
    return read_end


async def collect(*writers: int) -> bytes:
    pipes = Pipes()
    reading = asyncio.create_task(asyncio.to_thread(pipes.all))
    await asyncio.gather(*(forward(writer, pipes.output) for writer in writers))
    pipes.close()
    return await reading


async def test_long_lines_of_several_writers_stay_whole() -> None:
    letters = [b"a", b"b", b"c", b"d"]
    out = await collect(*(feed(*[letter * 100_000 + b"\n"] * 20) for letter in letters))
    assert sorted(out.splitlines()) == sorted(letter * 100_000 for letter in letters * 20)


async def test_a_line_that_comes_in_pieces_waits_for_its_end() -> None:
    out = await collect(feed(b"be", b"gun\nnot end", b"ed"), feed(b"x\n"))
    assert sorted(out.splitlines()) == [b"begun", b"not ended", b"x"]
    assert out.endswith(b"\n"), "the last line has its end, though its writer died before"


async def test_an_endless_line_is_not_kept(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(line_mux, "MAX_LINE_BYTES", 1000)
    out = await collect(feed(b"x" * 1_000_000))
    assert out == b"x" * 1_000_000 + (b"\n" if out.endswith(b"\n") else b"")


async def test_a_writer_waits_while_nothing_is_read() -> None:
    """No lines pile up in memory, and the event loop continues meanwhile."""
    pipes = Pipes()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    forwarding = asyncio.create_task(forward(read_end, pipes.output))
    taken, refused = 0, 0
    while refused < 50:
        try:
            taken += os.write(write_end, b"x" * 999 + b"\n")
            refused = 0
        except BlockingIOError:
            refused += 1
            await asyncio.sleep(0.001)
    assert taken < 1_500_000
    os.close(write_end)
    reading = asyncio.create_task(asyncio.to_thread(pipes.all))
    await forwarding
    pipes.close()
    assert len(await reading) == taken


async def test_a_reader_that_is_gone_is_noticed_once_and_writers_go_on() -> None:
    pipes = Pipes()
    os.close(pipes.read_end)
    await forward(feed(*[b"x" * 10_000 + b"\n"] * 100), pipes.output)
    assert len(pipes.losses) == 1
    assert isinstance(pipes.losses[0], BrokenPipeError)
    pipes.close()


async def test_our_own_lines_go_the_same_way() -> None:
    pipes = Pipes()
    pipes.output.write("worker.started ✓\n")
    pipes.output.flush()
    assert not pipes.output.isatty()
    await pipes.output.settle()
    pipes.close()
    assert pipes.all().decode() == "worker.started ✓\n"
