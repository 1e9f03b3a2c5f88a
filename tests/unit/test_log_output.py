"""Log lines are written whole, in order and once, whatever the descriptor does."""

from __future__ import annotations

import os
import threading

import pytest

from runner import log
from runner.log_output import DescriptorStream, LogSink
from tests.unit.captured_log import configured, parsed


def test_lines_that_wait_come_out_before_any_other() -> None:
    out = configured()
    log.get_message_logger({}).info("first")
    log.get_logger().info("second")
    assert [line["event"] for line in parsed(out)] == ["first", "second"]


def test_a_line_that_was_torn_is_ended_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a line, and has room again."""
    read_end, write_end = os.pipe()
    real, room = os.write, [4, 0, 100, 100]

    def write(descriptor: int, data: bytes) -> int:
        if (left := room.pop(0)) == 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, bytes(data)[:left])

    monkeypatch.setattr(os, "write", write)
    losses: list[OSError] = []
    output = LogSink(DescriptorStream(write_end), losses.append)
    output.write("long line\n")
    output.write("next\n")
    monkeypatch.undo()
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        assert stream.read() == "long\nnext\n"
    assert len(losses) == 1


def test_a_descriptor_that_does_not_block_loses_nothing() -> None:
    """A program that shares it, as ssh does, may have said so."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    got = bytearray()

    def read() -> None:
        with os.fdopen(read_end, "rb") as stream:
            got.extend(stream.read())

    reader = threading.Thread(target=read)
    reader.start()
    DescriptorStream(write_end).write("x" * 1_000_000 + "\n")
    os.close(write_end)
    reader.join()
    assert len(got) == 1_000_001


def test_a_child_of_a_fork_writes_nothing_twice() -> None:
    read_end, write_end = os.pipe()
    output = LogSink(DescriptorStream(write_end), lambda _: None)
    output._waiting.append("of the parent\n")  # waits for the end of the loop's turn
    child = os.fork()
    if child == 0:
        output.write("of the child\n")
        os._exit(0)
    os.waitpid(child, 0)
    output.flush()
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        assert stream.read() == "of the child\nof the parent\n"
