"""Finds slips of the keyboard that YAML refuses or misreads, and mends them in memory so that the rest is checked too.

Only the text of a file with problems is searched. Each slip is certain: the edit changes what YAML reads, not what the
author meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice, pairwise
from typing import Any, Final

from runner.config.document import dotted_path
from runner.config.outline import outline
from runner.config.positions import Lines
from runner.config.slips.characters import odd_blanks, odd_indentation, odd_quotes, wide_characters, wide_colons
from runner.config.slips.indentation import children_not_indented, dedented, item_too_deep, tabs, too_deep
from runner.config.slips.signs import (
    bare_keys,
    block_in_braces,
    comments,
    list_in_place_of_map,
    missing_colon,
    missing_dash_space,
    missing_space,
    named_items,
    prefixes,
    signs_in_braces,
    trailing_signs,
    unclosed,
)
from runner.config.slips.slip import Slip, Source
from runner.config.slips.texts import lists_of_words, second_colon, special_starts, templates
from runner.errors import Problem

_MAX_SLIPS: Final = 50
_MAX_CHARACTERS, _MAX_LINES = 50_000, 1000
"""Longer files are not searched: the time grows with the square of their lines."""


_RULES: tuple[Callable[[Any], Iterator[Slip]], ...] = (
    prefixes,
    odd_indentation,
    wide_colons,
    odd_quotes,
    odd_blanks,
    wide_characters,
    comments,
    templates,
    block_in_braces,
    unclosed,
    tabs,
    signs_in_braces,
    missing_space,
    missing_colon,
    bare_keys,
    missing_dash_space,
    named_items,
    children_not_indented,
    item_too_deep,
    dedented,
    too_deep,
    list_in_place_of_map,
    trailing_signs,
    special_starts,
    lists_of_words,
    second_colon,
)


def mend(lines: Lines, wrong: Collection[int] | None) -> tuple[Lines, list[Problem]]:
    """Return the lines with all slips mended, and a problem for each slip. `wrong` is that of `Source`."""
    problems: list[Problem] = []
    if len(lines.text) > _MAX_CHARACTERS:
        return lines, problems
    parsed = outline(lines.text)
    if len(parsed) > _MAX_LINES:
        return lines, problems
    for rule in _RULES:
        source = Source(lines.text, parsed, lines, wrong)
        found = list(islice(rule(source), _MAX_SLIPS))
        problems += [_problem(slip, lines) for slip in found if slip.message]
        edits = sorted({edit for slip in found for edit in slip.edits})
        if edits and all(before.end <= after.start for before, after in pairwise(edits)):
            lines = lines.mended(edits)
            parsed = outline(lines.text)
    return lines, problems


def _problem(slip: Slip, lines: Lines) -> Problem:
    span = lines.span(slip.start, slip.start + slip.length)
    fix = lines.fix(slip.edits) if slip.is_certain else None
    return span.problem("yaml-syntax", slip.message, slip.help, path=dotted_path(slip.path), fix=fix)
