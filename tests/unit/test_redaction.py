"""Passwords and control characters never reach what people read."""

import pytest

from runner.redaction import escape_controls, mask_passwords


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://user:s3cret@host/v", "amqp://user:***@host/v"),
        ("cannot reach amqps://u:p%40ss@a:1 and amqp://u:q@b", "cannot reach amqps://u:***@a:1 and amqp://u:***@b"),
        ("amqp://host/v", "amqp://host/v"),
        ("plain: text@home", "plain: text@home"),
    ],
)
def test_passwords_of_urls_are_masked(text: str, masked: str) -> None:
    """Wherever in a text the URL stands."""
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
