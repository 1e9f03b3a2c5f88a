"""What handlers print becomes log lines."""

from __future__ import annotations

import logging
import logging.config
import sys
import threading

import pytest

from runner import log
from runner.log_capture import MAX_PRINTED_CHARACTERS, CapturedStdout
from tests.unit.captured_log import configured, parsed

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_what_is_printed_becomes_lines() -> None:
    """With its place; in pieces, in bytes, and from several threads at once."""
    out = configured(capture_stdout=True)
    with log.bound_context({"subscriber": "s", "message_id": "m"}):
        print("hello", "world")
        print("in ", end="")
        print("pieces\nand more")
        print()
        sys.stdout.buffer.write(b"\xffbytes\r\n")
        print("at amqp://u:secret@h \x1b[31m", file=sys.stdout)
    lines = parsed(out)
    assert [line["text"] for line in lines] == [
        "hello world",
        "in pieces",
        "and more",
        "\\xffbytes",
        "at amqp://u:***@h \\x1b[31m",
    ]
    assert {(line["event"], line["level"], line["subscriber"], line["message_id"]) for line in lines} == {
        ("stdout", "info", "s", "m")
    }


def test_a_text_without_an_end_belongs_to_its_own_message() -> None:
    out = configured(capture_stdout=True)
    with log.bound_context({"message_id": "1"}):
        print("first", end="")
    with log.bound_context({"message_id": "2"}):
        print("second", end="")
        sys.stdout.flush()
    thread = threading.Thread(target=lambda: print("third", end=""))
    thread.start()
    thread.join()
    log.flush()
    assert [(line["text"], line.get("message_id")) for line in parsed(out)] == [
        ("first", "1"),
        ("second", "2"),
        ("third", None),
    ]


def test_an_endless_line_is_cut_into_several() -> None:
    lines: list[str] = []
    printed = CapturedStdout(lambda text, _: lines.append(text), dict, 1)
    printed.write("x" * (2 * MAX_PRINTED_CHARACTERS + 1))
    assert [len(line) for line in lines] == [MAX_PRINTED_CHARACTERS, MAX_PRINTED_CHARACTERS, 1]


def test_what_stands_in_for_stdout_can_do_what_a_stream_can() -> None:
    """Libraries ask it many things; programs that are started get the descriptor behind it."""
    printed = CapturedStdout(lambda *_: None, dict, 1)
    assert (printed.fileno(), printed.isatty(), printed.writable(), printed.encoding) == (1, False, True, "utf-8")
    printed.reconfigure(line_buffering=True)
    printed.close()
    assert not printed.closed
    with pytest.raises(TypeError):
        printed.write(b"bytes")  # type: ignore[arg-type]


def test_a_handler_of_logging_on_stdout_ends_in_lines() -> None:
    """As most applications have one."""
    out = configured(capture_stdout=True)
    logging.basicConfig(force=True, stream=sys.stdout, format="%(name)s says %(message)s", level=logging.INFO)
    logging.getLogger("shop").info("hello")
    assert [(line["event"], line["text"]) for line in parsed(out)] == [("stdout", "shop says hello")]
