"""S14: what is done with foreign text takes time in proportion to it, or is bounded: no text can stop the loop.

Sizes are compared, not times: twice the text may cost less than three times as much.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from pydantic import TypeAdapter

from runner import log
from runner.cli import dead_output, tables
from runner.config.messages import describe, quoted
from runner.errors import PublishFailed
from runner.log_capture import CapturedStdout
from runner.message import FIRST_FAILED_AT, ORIGIN_KEY, Address, Envelope
from runner.operations import dead_letter_json
from runner.operations.dead_letters import DeadLetterQueue, fingerprint, parse_dead_letter
from runner.operations.tap import recorded_line
from runner.outcome import DeadLetter, InvalidMessage, RetryPolicy, decide, error_text
from runner.pipeline import codec
from runner.pipeline.data_errors import json_error
from runner.redaction import escape_controls, escape_line, mask_head, mask_passwords, mask_tail, secret_spans
from runner.runtime.deduplication import identity
from runner.runtime.tracebacks import traceback_text
from runner.transports.failure_copies import foreign_headers, printable

PIECES = (
    *("a", "@", ":/a:", "://", "://a:b@", " ://a:", ":/a:b c@", "a:b@\n", ":/a: \n@", "amqp://u:pw@h/v "),
    *("\x1b", "\ud800", "\u202e", "é", "1", '"', '\\"', "'", "[", "[ ", '{"a":', "{", "\r\n", "${a"),
)
ENDS = ("", "\n@x")

ENOUGH_S = 0.02
"""A run that takes less is doubled first: the clock and the cache would say more than the text."""

LARGEST = 200_000
"""What is done with so many characters within that time needs no comparison."""

ENVELOPE = Envelope(b"", message_id="m", headers={})
DLQ = DeadLetterQueue("q.dead", frozenset({"q"}))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def in_the_log(format: Any, make: Callable[[str], dict[str, Any]]) -> Callable[[str], object]:
    def write(text: str) -> None:
        log.configure(format=format, stream=StringIO(), is_colored=False)
        log.get_logger().error("it happened", **make(text))

    return write


def error(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as caught:
        return caught


def dead(text: str) -> Any:
    headers = {FIRST_FAILED_AT: text, ORIGIN_KEY: text, text: text, "x-death": [{"queue": text, "reason": text}]}
    letter = parse_dead_letter(ENVELOPE._replace(body=text.encode(errors="replace"), headers=headers), DLQ)
    return (
        dead_output.details(letter, NOW),
        dead_output.table_row(letter, NOW),
        dead_letter_json.details_to_json(letter, NOW),
    )


def decoded(annotation: Any) -> Callable[[str], object]:
    decode = codec.decoder(annotation)

    def run(text: str) -> None:
        try:
            decode(ENVELOPE._replace(body=text.encode(errors="replace")))
        except InvalidMessage as refused:
            decide(refused, 1, RetryPolicy())

    return run


def encoded(text: str) -> None:
    encode = codec.encoder(TypeAdapter(dict[str, int]), "q")
    for found in (text, codec.guess_payload(text.encode(errors="replace"))):
        with contextlib.suppress(PublishFailed, UnicodeEncodeError):
            encode(found)


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "mask_passwords": mask_passwords,
    "secret_spans": secret_spans,
    "mask_head": lambda text: mask_head(text, 1024),
    "mask_tail": lambda text: mask_tail(text, 32_768),
    "escape_controls": escape_controls,
    "printable": printable,
    "describe": describe,
    "quoted": quoted,
    "a value in the log": in_the_log(
        "json", lambda text: {"value": text, "list": [text] * 3, text[:100]: {text: text}}
    ),
    "a traceback in the log": in_the_log("json", lambda text: {"exception": text}),
    "an exception in the log": in_the_log("json", lambda text: {"exc_info": error(text)}),
    "a line for people": in_the_log("console", lambda text: {"value": text, "exception": text, "subscriber": text}),
    "what is printed": lambda text: CapturedStdout(lambda line, place: None, dict, 1).write(text),
    "error_text": lambda text: error_text(error(text)),
    "traceback_text": lambda text: traceback_text(error(text)),
    "decide": lambda text: decide(error(text), 3, RetryPolicy()),
    "a body of any kind": decoded(Any),
    "a body as text": decoded(str),
    "a body as a map": decoded(dict[str, int]),
    "a body that is published": encoded,
    "a key": lambda text: codec.key_reader("a.b")(ENVELOPE._replace(body=text.encode(errors="replace"))),
    "json_error": lambda text: json_error(text.encode(errors="replace")),
    "headers": lambda text: foreign_headers({text.encode(errors="replace").decode(): text, "b": [text]}),
    "a dead letter": dead,
    "fingerprint": lambda text: fingerprint(ENVELOPE._replace(body=text.encode(errors="replace"))),
    "identity": lambda text: identity(ENVELOPE._replace(message_id=text)),
    "recorded": lambda text: recorded_line(ENVELOPE._replace(body=text.encode(errors="replace"))),
    "safe": escape_line,
    "cut": lambda text: tables.truncate(text, 80),
    "columns": lambda text: tables.format_columns([(text, "b"), ("a", text)], width=80),
    "json_line": lambda text: tables.json_line({"a": text}),
    "an address": lambda text: str(Address(text, text)),
    "an outcome": lambda text: DeadLetter("invalid", text, text),
}


def took(function: Callable[[str], object], text: str) -> float:
    """Return the processor time of a run; the better one of two where it is so short that chance counts."""
    started = time.process_time()
    function(text)
    once = time.process_time() - started
    if once > 5 * ENOUGH_S:
        return once
    started = time.process_time()
    function(text)
    return min(once, time.process_time() - started)


def of_size(piece: str, end: str, size: int) -> str:
    return piece * (size // len(piece)) + end


@pytest.fixture(autouse=True)
def _restored() -> Any:
    yield
    log.configure()


@pytest.mark.timeout(300)  # CPU time is compared, and a busy machine gives it little
@pytest.mark.parametrize("name", FUNCTIONS)
def test_twice_the_text_takes_twice_the_time(name: str) -> None:
    function = FUNCTIONS[name]
    for piece in PIECES:
        for end in ENDS:
            size = 32_000
            while size < LARGEST and took(function, of_size(piece, end, size)) < ENOUGH_S:
                size *= 4
            if size >= LARGEST:
                continue
            ratios = [
                took(function, of_size(piece, end, 2 * size)) / took(function, of_size(piece, end, size))
                for _ in range(3)
            ]
            assert statistics.median(ratios) < 3, (name, piece, end, size)


def test_the_measure_finds_what_is_quadratic() -> None:
    """Else the test above would say nothing."""

    def quadratic(text: str) -> None:
        for start in range(0, len(text), 100):
            text[start:].count("x")

    assert took(quadratic, "a" * 400_000) / took(quadratic, "a" * 200_000) > 3


def test_one_line_takes_little_whatever_is_in_it() -> None:
    """Nested values are bounded as a whole, not only at each level."""
    deep: Any = "x"
    for _ in range(5):
        deep = [deep] * 100
    out = StringIO()
    log.configure(format="json", stream=out)
    log.get_logger().info("shown", deep=deep, wide={str(number): "y" * 3000 for number in range(100_000)})
    assert len(out.getvalue()) < 1_000_000
    assert json.loads(out.getvalue())["event"] == "shown"
