"""Log lines stay one line of valid JSON, show no password, and never stop the work, whatever is put into them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from runner import log
from runner.log_renderers import CONTEXT_FIELDS, ConsoleRenderer

HOSTILE = 'a\nb\u2028c\x85d\x1b[31m{"level": "error"}'
ESCAPED = 'a\\nb\\u2028c\\x85d\\x1b[31m{"level": "error"}'


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


class Talkative:
    def __repr__(self) -> str:
        return "connected to amqp://shop:secret@host\u2028"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    log.configure()


def written(format: Literal["json", "console"] = "json", **fields: Any) -> str:
    out = io.StringIO()
    log.configure(format=format, stream=out)
    log.get_logger().warning("it happened", **fields)
    return out.getvalue()


def test_values_at_any_depth_are_escaped_and_masked() -> None:
    line = written(
        top=HOSTILE,
        nested={"list": [HOSTILE, {"url": "amqp://shop:secret@host"}], HOSTILE: 1},
        thing=Talkative(),
        broken=Unprintable(),
        raw=b"\xff",
    )
    found = json.loads(line)
    assert found["top"] == ESCAPED
    assert found["nested"] == {"list": [ESCAPED, {"url": "amqp://shop:***@host"}], ESCAPED: 1}
    assert found["thing"] == "connected to amqp://shop:***@host\\u2028"
    assert found["broken"] == "<Unprintable>"
    assert found["raw"] == r"b'\xff'"
    assert len(line.splitlines()) == 1


def test_long_deep_and_endless_values_are_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    found = json.loads(written(long="x" * 5000, many=list(range(1000)), endless=endless))
    assert found["long"] == "x" * 2048 + "…"
    assert len(found["many"]) == 100
    assert found["endless"] == [[[[["…"]]]]]


def test_numbers_that_json_does_not_know_are_words() -> None:
    assert json.loads(written(a=float("nan"), b=float("-inf"), c=1.5, d=None, e=True), parse_constant=pytest.fail) | {
        "timestamp": ""
    } == {
        "timestamp": "",
        "level": "warning",
        "event": "it happened",
        "a": "nan",
        "b": "-inf",
        "c": 1.5,
        "d": None,
        "e": True,
    }


@pytest.mark.parametrize("format", ["json", "console"])
def test_tracebacks_keep_their_lines_and_nothing_else_of_control(format: Literal["json", "console"]) -> None:
    text = written(format, exception="Traceback\n  \x1b[2J at amqp://shop:secret@host\u2028\nValueError: \x07")
    shown = json.loads(text)["exception"] if format == "json" else text.partition("\n")[2].rstrip("\n")
    assert shown == "Traceback\n  \\x1b[2J at amqp://shop:***@host\\u2028\nValueError: \\x07"


class Closed(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_cannot_be_written_stops_nothing_and_is_told_once() -> None:
    told: list[OSError] = []
    log.configure(format="json", stream=Closed(), on_write_error=told.append)
    for _ in range(3):
        log.get_logger().info("one")
        logging.getLogger("handlers").warning("two")
    assert [type(error) for error in told] == [BrokenPipeError]


def test_the_flood_of_a_lost_connection_is_left_out() -> None:
    out = io.StringIO()
    log.configure(format="json", stream=out)
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger("asyncio").warning("Executing %s took %.3f seconds", "x", 2.0)
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["Executing x took 2.000 seconds"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_a_level_can_be_read_without_colours(level: str) -> None:
    """In a pipe and with NO_COLOR a line is text alone, and its level is a word in a column of its own."""
    line = ConsoleRenderer(is_colored=False)(
        None, "", {"timestamp": "2026-01-01T12:00:00Z", "level": level, "event": "e"}
    )
    assert line.split()[1] == level
    assert "\x1b" not in line


def test_a_worker_says_in_each_line_which_one_it_is() -> None:
    """In ours and in those of the standard library; for people, in front."""
    out = io.StringIO()
    log.configure(format="json", stream=out, worker=2)
    log.get_logger().info("ours")
    logging.getLogger("theirs").warning("theirs")
    assert [json.loads(line)["worker"] for line in out.getvalue().splitlines()] == [2, 2]
    assert log.current_settings()["worker"] == 2, "for the processes of handlers"
    out = io.StringIO()
    log.configure(format="console", stream=out, is_colored=False, worker=2)
    log.get_logger().info("ours", subscriber="ship")
    assert out.getvalue()[8:].startswith(" info    #2 ship │ ours")
    assert "#" not in written("console", subscriber="ship")


MESSAGE_FIELDS = (
    {"message_id": "0f" * 16, "correlation_id": None, "attempt": 1, "duration_ms": 0.3, "published": 2},
    {"message_id": HOSTILE, "correlation_id": "amqp://shop:secret@host", "attempt": 1, "trace_id": "ab" * 16},
    {"message_id": 'quotes " and \\ too', "correlation_id": "x" * 5000, "to": "ä\ud800é"},
    {"message_id": "a", "duration_ms": float("nan"), "published": 2**70},
    {"message_id": Talkative(), "duplicate": True, "list": [1, {"two": HOSTILE}]},
    {"message_id": "a", "payload": HOSTILE},
)


@pytest.mark.parametrize("fields", MESSAGE_FIELDS, ids=str)
@pytest.mark.parametrize("options", [{}, {"worker": 3}, {"level": "warning"}, {"muted": ["message.handled"]}], ids=str)
@pytest.mark.parametrize("bound", [{}, {"tenant": "acme"}], ids=str)
def test_a_line_of_a_message_is_the_line_that_the_general_logger_writes(
    fields: dict[str, Any], options: dict[str, Any], bound: dict[str, Any]
) -> None:
    """Byte for byte but for its time, whichever way it takes: with a worker, and with what an application has bound."""
    out = io.StringIO()
    log.configure(format="json", stream=out, **options)
    shared = {"pipeline": "shop", "subscriber": HOSTILE, "queue": "orders"}
    place = {name: value for name, value in fields.items() if name in (*CONTEXT_FIELDS, "payload")}
    own = {name: value for name, value in fields.items() if name not in place}
    with log.bound_context({**shared, **place}), structlog.contextvars.bound_contextvars(**bound):
        log.get_message_logger(shared).info("message.handled", **own)
        log.get_message_logger(shared).debug("message.handled", **own)
        log.flush()
        fast = out.getvalue()
        log.get_logger().info("message.handled", **own)
        log.get_logger().debug("message.handled", **own)
    without_time = re.sub(r'^\{"timestamp": "[-\dT:.]+Z"', '{"timestamp": "now"', out.getvalue(), flags=re.MULTILINE)
    first, second = without_time.splitlines() or ("", "")
    assert first == second
    assert fast.count("\n") == (0 if "level" in options or "muted" in options else 1)
