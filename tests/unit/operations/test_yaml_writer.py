"""The YAML that we write: our reader and that of others find the same in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.config.document import plain_data
from runner.config.yaml_parser import parse_yaml
from runner.operations.yaml_writer import Leaf, Tree, to_yaml

PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def read(text: str) -> Any:
    document, problems = parse_yaml(text, Path("a.yaml"))
    assert problems == []
    return plain_data(document.root)


def tree(value: Any) -> Tree:
    if isinstance(value, dict):
        return {key: tree(item) for key, item in value.items()}
    return [tree(item) for item in value] if isinstance(value, list) else Leaf(value, "a # comment")


@given(PRINTABLE, PRINTABLE)
def test_every_text_stays_the_same_text(key: str, text: str) -> None:
    """Whatever stands in it, for a reader of YAML 1.2 and for one of 1.1."""
    written = to_yaml({key: Leaf(text)})
    assert read(written) == {key: text.replace("$", "$$")}
    assert yaml.safe_load(written) == {key: text.replace("$", "$$")}


WORDS = "yes no on off y N true False null ~ 010 0o7 0x1F 1_000 12:30 12:30:45 2024-01-01 1e3 .5 .inf -1 +1 1. <<"
SIGNS = ["", " a", "a ", "a: b", "a #b", "- a", "? a", "a:", "[a]", "{a}", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">"]


@pytest.mark.parametrize("text", [*WORDS.split(), *SIGNS])
def test_what_could_be_something_else_is_quoted(text: str) -> None:
    """Readers of YAML 1.1 take many words for booleans, numbers, dates and times."""
    written = to_yaml({"key": Leaf(text)})
    assert written == f'key: "{text}"\n'
    assert yaml.safe_load(written) == {"key": text} == read(written)


@pytest.mark.parametrize(
    "text", ["orders", "handlers.orders:place", "10s", "1.5MiB", "200/s", "From the shop.", "订单"]
)
def test_what_is_plain_is_not_quoted(text: str) -> None:
    """A configuration is for people."""
    assert to_yaml({"key": Leaf(text)}) == f"key: {text}\n"


@given(st.one_of(st.none(), st.booleans(), st.integers(-(10**99), 16**98), st.floats(allow_nan=False)))
def test_other_values_keep_their_type(value: object) -> None:
    """Numbers as numbers, true and false, and nothing as null."""
    found = read(to_yaml({"key": Leaf(value)}))["key"]
    assert (found, type(found)) == (value, type(value))


@given(
    st.dictionaries(
        PRINTABLE,
        st.recursive(
            st.integers(),
            lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(PRINTABLE, inner, max_size=3)),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_maps_and_lists_in_each_other_stay_what_they_are(value: dict[str, Any]) -> None:
    """In every combination, empty ones too, with comments behind the values."""
    assert read(to_yaml(tree(value))) == value  # type: ignore[arg-type]


def test_a_very_long_key_is_written_so_that_it_can_be_read() -> None:
    """YAML has a limit for keys on one line."""
    for node in (Leaf(1), {"a": Leaf(1)}, [Leaf(1)]):
        assert list(read(to_yaml({"k" * 3000: node}))) == ["k" * 3000]


def test_comments_stand_in_one_column() -> None:
    """So that the eye can follow them."""
    text = to_yaml({"a": Leaf(1, "one"), "long_name": Leaf("text", "two"), "c": {"d": Leaf(True, "three\nlines")}})
    assert text == "a: 1             # one\nlong_name: text  # two\nc:\n  d: true        # three\\nlines\n"
