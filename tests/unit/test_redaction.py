"""Passwords and control characters never reach what people read."""

import pytest

from runner.redaction import escape_controls, mask_passwords, secret_spans


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://u:secret@host/v", "amqp://u:***@host/v"),
        ("amqp://u:sec@ret@host", "amqp://u:***@host"),
        ("amqp://u:sec/ret@host", "amqp://u:***@host"),
        ("amqp://u:sec ret@host", "amqp://u:***@host"),
        ("amqp://:secret@host", "amqp://:***@host"),
        ("amqp://u@host", "amqp://u@host"),
        ("amqp://host:5672/v", "amqp://host:5672/v"),
        ("a amqp://u:p@h, amqp://u:q@i b", "a amqp://u:***@h, amqp://u:***@i b"),
        ("no url: at@all", "no url: at@all"),
        ("cannot reach amqps://u:p%40ss@a:1 and amqp://u:q@b", "cannot reach amqps://u:***@a:1 and amqp://u:***@b"),
        ("", ""),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    """Also those which should have been written as %XX."""
    assert mask_passwords(text) == masked


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("\x9b", "\\x9b"),
        ("订单编号: 1", "订单编号: 1"),
    ],
)
def test_control_characters_are_escaped(text: str, escaped: str) -> None:
    """A message cannot write lines of its own into the log; other languages stay readable."""
    assert escape_controls(text) == escaped


def test_the_spans_of_secrets_are_those_that_are_masked() -> None:
    """An excerpt hides the same characters."""
    text = "amqp://u:secret@h amqp://v:pw@h"
    assert [text[start:end] for start, end in secret_spans(text)] == ["secret", "pw"]
