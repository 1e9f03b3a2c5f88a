"""Foreign text does a terminal no harm, and columns stand below each other."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.cli.tables import format_age, format_columns, format_size, json_line, truncate
from runner.redaction import escape_line
from runner.text_width import display_width


@given(st.text(), st.none() | st.integers(1, 50))
def test_safe_text_prints(text: str, at_most: int | None) -> None:
    """No control character, no change of direction, no line break is left."""
    shown = escape_line(text, at_most)
    assert not [
        letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
    ]


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_one_line_that_says_the_same(value: object) -> None:
    """Whatever is in it."""
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (3600 * 5, "5h"), (86_400 * 400, "400d")],
)
def test_ages(seconds: float | None, shown: str) -> None:
    assert format_age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_960, "10 kB"), (999_400, "999 kB"),
        (999_600, "1.0 MB"), (10_240_000, "10 MB"), (5 * 10**12, "5000 GB"),
    ],
)  # fmt: skip
def test_sizes(count: int, shown: str) -> None:
    assert format_size(count) == shown


def test_columns_stand_below_each_other() -> None:
    """Wide letters take two columns, marks none."""
    lines = format_columns([("NAME", "N"), ("订单", "7"), ("e\u0301a", "12")], right=(1,))
    assert lines == ["NAME   N", "订单   7", "e\u0301a    12"]


@given(st.text(st.characters(categories=("L", "N", "Zs", "Mn")), max_size=60), st.integers(2, 40))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert display_width(truncate(text, width)) <= width
