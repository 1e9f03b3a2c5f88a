"""Topic patterns and header arguments, against a plain definition of what they mean."""

from __future__ import annotations

import time
from functools import reduce

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.pipeline.topic_patterns import is_pattern, matches, matches_headers, words_of

WORDS = st.sampled_from(["a", "b", "", "*", "#", "a*"])
TEXTS = st.lists(WORDS, max_size=6).map(".".join)


def plain_matches(pattern: list[str], words: list[str]) -> bool:
    """Say what a pattern means, one word after the other, without a thought for speed."""
    match pattern:
        case []:
            return not words
        case ["#", *rest]:
            return any(plain_matches(rest, words[skipped:]) for skipped in range(len(words) + 1))
        case [word, *rest]:
            return bool(words) and word in ("*", words[0]) and plain_matches(rest, words[1:])
    raise AssertionError(pattern)


@given(pattern=TEXTS, key=TEXTS)
@example(pattern="logs.#", key="logs")
@example(pattern="#.a.#.b.#", key="a.a.b")
@example(pattern="", key="")
def test_matching_equals_its_plain_definition(pattern: str, key: str) -> None:
    """However the words and wildcards are mixed, the quick way finds what the plain definition says."""
    assert matches(pattern, key) is plain_matches(words_of(pattern), words_of(key))


@given(key=TEXTS)
def test_everything_matches_itself_and_the_catch_all(key: str) -> None:
    """A pattern without wildcards is a key; `#` is every key."""
    assert matches("#", key)
    if not is_pattern(key):
        assert matches(key, key)


def test_many_wildcards_take_no_exponential_time() -> None:
    """A hostile pattern cannot stop the broker."""
    began = time.perf_counter()
    assert not matches(reduce(lambda text, _: f"{text}.#.a", range(50), "#"), ".".join("a" * 49) + ".b")
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b", False), ("a.*", True), ("#", True), ("a*", False), ("", False), ("a.#.b", True), ("##", False)],
)
def test_only_whole_words_are_wildcards(text: str, expected: bool) -> None:
    """A star inside a word is a star."""
    assert is_pattern(text) is expected


def test_headers_of_one_kind_are_compared_by_value() -> None:
    """Whole numbers, fractions, text and booleans are different things, also in lists and maps."""
    assert not matches_headers({"a": 1}, {"a": 1.0})
    assert not matches_headers({"a": [1, {"b": 1}]}, {"a": [1, {"b": True}]})
    assert matches_headers({"a": [1, {"b": 1.5}]}, {"a": [1, {"b": 1.5}]})
    assert matches_headers({"a": [1]}, {"a": [1]})
    assert not matches_headers({"a": 1}, {"a": True})
    assert not matches_headers({"a": "1"}, {"a": 1})
    assert not matches_headers({"a": 1}, {})
