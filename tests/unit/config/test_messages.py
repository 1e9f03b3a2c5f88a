"""Our words for every kind of error that pydantic has."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic_core import core_schema

from runner.config.messages import closest, error_message
from tests.unit.config.test_spec import PYDANTIC_WORDS


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_every_kind_of_error_has_words_of_ours(kind: str) -> None:
    """Also those that our fields cannot cause today."""
    code, message, help_ = error_message(kind, {"ge": 1, "le": 2, "error": "Input should be"}, 5)
    assert code in ("wrong-type", "wrong-value", "out-of-range", "empty-list")
    assert message
    assert not any(word in message + help_ for word in PYDANTIC_WORDS)


def test_the_closest_word_is_found_or_none() -> None:
    """Whatever its case; nothing is better than nonsense."""
    assert closest("Handlr", ["handler", "to"]) == "handler"
    assert closest("zzz", ["handler", "to"]) is None
    assert closest("x" * 100_000, ["x"]) is None
    assert closest("a", []) is None
