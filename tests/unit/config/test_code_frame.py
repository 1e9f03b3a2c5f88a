"""One line of a file on a terminal, with carets that meet their span."""

from __future__ import annotations

import pytest

from runner.config.code_frame import code_frame, escape


@pytest.mark.parametrize(
    ("line", "column", "length", "shown", "carets"),
    [
        ("  handlr: x", 3, 6, "  handlr: x", "  ^^^^^^"),
        ("a", 1, 1, "a", "^"),
        ("", 1, 1, "", "^"),
        ("ab", 9, 5, "ab", "  ^"),
        ("ab", 2, 99, "ab", " ^"),
        ("名前: x", 5, 1, "名前: x", "      ^"),
        ("名前: 値", 5, 1, "名前: 値", "      ^^"),
        ("e\u0301: x", 5, 1, "e\u0301: x", "   ^"),
        ("\ta: b", 5, 1, "    a: b", "       ^"),
        ("a\x1b[31mb: c", 10, 1, "a\\x1b[31mb: c", "            ^"),
        ("a\u202eb: c", 6, 1, "a\\u202eb: c", "          ^"),
        ("url: amqp://u:secret@h", 6, 17, "url: amqp://u:***@h", "     ^^^^^^^^^^^^^^"),
        ("url: amqp://u:secret@h x", 24, 1, "url: amqp://u:***@h x", "                    ^"),
    ],
)
def test_carets_stand_under_their_span(line: str, column: int, length: int, shown: str, carets: str) -> None:
    """Behind wide, combining, control and masked characters too."""
    assert code_frame(line, column, length) == (shown, carets)


def test_a_long_line_is_cut_around_its_span() -> None:
    """A file of one line does not fill the terminal."""
    shown, carets = code_frame("a" * 5000 + "B" + "c" * 5000, 5001, 1)
    assert len(shown) == 122
    assert shown[carets.index("^")] == "B"
    assert carets.count("^") == 1
    shown, carets = code_frame("x" * 5000, 1, 5000)
    assert len(shown) <= 250
    assert len(carets) <= len(shown)


def test_control_characters_are_written_out() -> None:
    """A terminal acts on none of them."""
    assert escape("a\nb\x1b\x85\u2028\U000e0001") == "a\\x0ab\\x1b\\x85\\u2028\\U000e0001"
    assert escape("plain ünïcödé 値") == "plain ünïcödé 値"
