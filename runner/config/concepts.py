"""Guesses what an unknown key means by the words that it consists of, from `concepts.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from runner.config.foreign_words import ForeignWord, normal
from runner.config.models import model_below
from runner.config.proposals import place_of, proposals
from runner.config.spec_model import SpecModel, field_keys
from runner.tables import read_table

_MIN_COVERAGE = 0.33


class _Row(NamedTuple):
    key: str
    how: str
    groups: list[frozenset[str]]


@cache
def _fillers() -> frozenset[str]:
    """Return the words that say little of a key's meaning: they count for a row, and not against it."""
    return frozenset(word for where, *_, words in _table() if where == "-" for word in words.split())


def _table() -> tuple[tuple[str, ...], ...]:
    return read_table("runner.config", "concepts.txt", 4)


@cache
def _rows(place: str) -> list[_Row]:
    return [
        _Row(key, how, [frozenset(group.split()) for group in groups.split("&")])
        for where, key, how, groups in _table()
        if where == place
    ]


def guessed_word(model: type[SpecModel], key: str, value: object) -> ForeignWord | None:
    """Return what an unknown key of a map seems to mean; None if nothing is likely, or takes its value.

    The remark is what the key that is meant does, in the words of its description.
    """
    words = normal(key).split("_")
    likely = sorted(_coverages(place_of(model), words), key=lambda item: -item[0])
    for coverage, row in likely:
        *path, name = row.key.split(".")
        home = model_below(model, tuple(path))
        if coverage >= _MIN_COVERAGE and proposals(home, name, value, row.how):
            return ForeignWord(row.key, row.how, _description(home, name), is_guess=True)
    return None


def _coverages(place: str, words: list[str]) -> Iterator[tuple[float, _Row]]:
    """Yield the rows that a key may mean, each with the share of its words that the row has."""
    for row in _rows(place):
        found = [next((word for word in words if word in group), "") for group in row.groups]
        if all(found):
            known = [word for word in words if any(word in group for group in row.groups)]
            others = [word for word in words if word not in known and word not in _fillers()]
            yield (len(known) / (len(known) + len(others)), row)


def _description(model: type[SpecModel], key: str) -> str:
    """Return the first sentence of a key's description."""
    for name, field in model.model_fields.items():
        if key in field_keys(name, field):
            text = (field.description or "").partition(". ")[0].rstrip(".")
            return f"{text[:1].lower()}{text[1:]}"
    return ""
