"""S12: passwords in texts that were cut, and in paths that were meant to be URLs."""

from __future__ import annotations

import json
import time
from io import StringIO

import pytest

from runner import log
from runner.config.messages import describe, quoted
from runner.log_renderers import MAX_TEXT_CHARACTERS
from runner.redaction import mask_passwords
from runner.transports.failure_copies import printable

SECRET = "S3CR3T-CANARY"
URL = f"amqp://user:{SECRET}@host/vhost"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot reach amqp://user:S3CR", "cannot reach amqp://user:***"),
        ("amqp://user:S3C/R#", "amqp://user:***"),
        ("amqp://u:pw@h and amqp://user:S3CR…", "amqp://u:***@h and amqp://user:***"),
        ("amqp://user:123456", "amqp://user:***"),
        ("amqp://user:1%4", "amqp://user:***"),
        ("amqp:/user:S3CR3T@host", "amqp:/user:***@host"),
        ("at http://localhost:8080", "at http://localhost:8080"),
        ("at http://localhost:8080/path", "at http://localhost:8080/path"),
        ('at "http://localhost:8080")', 'at "http://localhost:8080")'),
        ("at http://[::1]:8080", "at http://[::1]:8080"),
        ("amqp://${HOST}:${PORT}", "amqp://${HOST}:${PORT}"),
        ("amqp://user:***", "amqp://user:***"),
        ("amqp://user:", "amqp://user:"),
        ("amqp://user:S3CR3T ends before it", "amqp://user:S3CR3T ends before it"),
    ],
)
def test_what_was_cut_before_its_host_is_a_password_too(text: str, masked: str) -> None:
    """At the end of a text only, where something may have been cut off; a port is none."""
    assert mask_passwords(text) == masked


@pytest.mark.parametrize("piece", ["://", "://a:", "a://b:c", ":/", "://a:b@", " ://a:", ":/a:@"])
def test_hostile_text_takes_no_time(piece: str) -> None:
    """A megabyte of almost URLs."""
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    mask_passwords(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("length", range(30, 70))
def test_diagnostics_mask_before_they_cut(length: int) -> None:
    """A value that is shortened to sixty characters, with the cut anywhere in its password."""
    text = URL.replace("user", "u" * length)
    for shown in (describe(text), quoted(text)):
        assert "S3C" not in shown


def shown_in_the_log(**fields: object) -> str:
    out = StringIO()
    log.configure(format="json", stream=out)
    log.get_logger().info("shown", **fields)
    (line,) = map(json.loads, out.getvalue().splitlines())
    return repr(line)


@pytest.mark.parametrize("before", range(2048 - len(URL), 2048, 3))
def test_the_log_shows_no_part_of_a_password_where_it_cuts(before: int) -> None:
    """Values are at most 2 KiB long."""
    assert "S3C" not in shown_in_the_log(error=f"{'x' * (before - 1)} {URL}")


def test_the_log_shows_no_part_of_a_password_where_a_traceback_begins() -> None:
    """Tracebacks lose their beginning, where they are too long."""
    kept = URL[URL.index("CANARY") :]
    text = URL + "x" * (MAX_TEXT_CHARACTERS - len(kept))
    assert "CANARY" not in shown_in_the_log(exception=text)


def test_the_headers_of_a_dead_letter_show_no_password() -> None:
    """Neither a whole one nor one that was cut."""
    assert SECRET not in printable(f"cannot reach {URL}")
