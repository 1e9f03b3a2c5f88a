"""How a dead letter is shown: everything, escaped, and not too much of it."""

from __future__ import annotations

import base64
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.dead_output import details, table_row
from runner.cli.tables import json_line
from runner.message import Envelope
from runner.operations.dead_letter_json import MAX_BODY, body_lines, body_to_json, details_to_json, to_json, to_plain
from runner.operations.dead_letters import DeadLetterQueue, parse_dead_letter

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DLQ = DeadLetterQueue("orders.dead", frozenset({"orders"}))


def shown(body: bytes) -> list[str]:
    return body_lines(Envelope(body))


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"plain", ["plain"]),
        (b"two\nlines\r\n", ["two", "lines"]),
        (b"\x1b[31mred", ["\\x1b[31mred"]),
        (b'{"b":1.10,"a":[1,{}],"c":{"d":[]}}',
         ["{", '  "b": 1.10,', '  "a": [', "    1,", "    {}", "  ],", '  "c": {', '    "d": []', "  }", "}"]),
        (b'{"a":1,"a":2}', ["{", '  "a": 1,', '  "a": 2', "}"]),
        (b'"text: {}"', ['"text: {}"']),
        (b'{"quote": "a\\"{}[],:"}', ["{", '  "quote": "a\\"{}[],:"', "}"]),
        (b"\xff\x00A", ["00000000  ff 00 41                                         ..A"]),
    ],
)  # fmt: skip
def test_a_body_is_shown_as_what_it_is(body: bytes, lines: list[str]) -> None:
    """JSON laid out with every number and name as it was, text by line, bytes as a dump."""
    assert shown(body) == lines


def test_a_long_body_is_cut() -> None:
    """And says so, with its whole size."""
    lines = shown(b"x" * 10_000_000)
    assert len(lines[0]) == MAX_BODY
    assert lines[-1] == "… cut: the whole body has 10,000,000 bytes"
    assert shown(bytes(10_000_000))[-1] == "… cut: the whole body has 10,000,000 bytes"
    assert len(shown(bytes(10_000_000))) == 65


@given(st.binary(max_size=200))
def test_json_laid_out_says_the_same(data: bytes) -> None:
    """Any JSON text with these letters in it."""
    value: Any = {"a": [data.decode("latin-1"), {"": data.hex()}], "b": []}
    assert json.loads("\n".join(shown(json.dumps(value).encode()))) == value


@pytest.mark.parametrize("body", [b"", "é".encode() * MAX_BODY, b"\xff" * 10, b"\xff" * (MAX_BODY + 1)])
def test_a_body_in_json_is_text_or_base64(body: bytes) -> None:
    """A letter that the cut would split is left out."""
    said = body_to_json(body, len(body))
    assert said["body_is_cut"] is (len(body) > MAX_BODY)
    if "body" in said:
        assert body.decode().startswith(said["body"])
    else:
        assert body.startswith(base64.b64decode(said["body_base64"]))


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary() | st.datetimes(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=10,
        ),
    ),
    st.text(max_size=40),
)
def test_hostile_headers_are_shown_on_their_lines(headers: dict[str, Any], message_id: str) -> None:
    """Nothing in a message breaks a line, a table or the JSON."""
    letter = parse_dead_letter(Envelope(b"\x1b", message_id=message_id or None, headers=headers), DLQ)
    for text in (*details(letter, NOW), *table_row(letter, NOW)):
        assert not {unicodedata.category(sign) for sign in text} & {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
    json.loads(json_line(details_to_json(letter, NOW)))
    assert to_json(letter, NOW)["size"] == 1


def test_deep_and_long_headers_are_cut() -> None:
    value: Any = "end"
    for _ in range(60):
        value = [value]
    assert json.dumps(to_plain(value)) == '[[[[[["\\u2026"]]]]]]'
    assert len(to_plain(["x"] * 1000)) == 100
