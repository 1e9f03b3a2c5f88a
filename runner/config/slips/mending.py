"""Finds slips of the keyboard that YAML refuses or misreads, and mends them in memory so that the rest is checked too.

Only the text of a file with problems is searched. Each slip is certain: the edit changes what YAML reads, not what the
author meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice, pairwise
from typing import Any, Final

from runner.config.document import dotted_path
from runner.config.outline import outline
from runner.config.positions import Lines
from runner.config.slips import characters, indentation, signs, texts
from runner.config.slips.slip import Slip, Source
from runner.errors import Problem

_MAX_SLIPS: Final = 50
_MAX_CHARACTERS, _MAX_LINES = 50_000, 1000
"""Longer files are not searched: the time grows with the square of their lines."""


_RULES: Final[tuple[tuple[Callable[[Any], Iterator[Slip]], ...], ...]] = (
    (signs.prefixes, signs.diffs, signs.marks, indentation.first_line),
    (signs.block_comments, characters.odd_indentation, characters.wide_colons),
    (characters.odd_quotes, characters.odd_blanks, characters.wide_characters, signs.comments, texts.templates),
    (signs.block_in_braces, signs.unclosed, signs.dashes_before_sections),
    (signs.quoted_pairs, signs.split_numbers, texts.escapes, texts.texts_not_indented, indentation.sections_inside),
    (indentation.commented_heads, indentation.missing_heads, indentation.missing_names, indentation.uneven_items),
    (indentation.tabs, indentation.uneven_first_keys, indentation.uneven_names),
    (signs.signs_in_braces, signs.missing_space, signs.missing_colon),
    (signs.bare_keys, signs.missing_dash_space, signs.named_items, indentation.children_not_indented),
    (indentation.item_too_deep, indentation.option_too_deep, signs.stray_dashes, signs.list_in_place_of_map),
    (indentation.below_a_text, indentation.dedented, indentation.too_deep, signs.trailing_signs),
    (texts.unknown_aliases, texts.special_starts, texts.lists_of_words, texts.second_colon),
    (indentation.repeated_options,),
)
"""In their order: each one reads the text that those before it have mended."""


def mend(lines: Lines, wrong: Collection[int] | None) -> tuple[Lines, list[Problem]]:
    """Return the lines with all slips mended, and a problem for each slip. `wrong` is that of `Source`."""
    problems: list[Problem] = []
    if len(lines.text) > _MAX_CHARACTERS:
        return lines, problems
    parsed = outline(lines.text)
    if len(parsed) > _MAX_LINES:
        return lines, problems
    for rule in chain.from_iterable(_RULES):
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
    return span.problem(slip.code, slip.message, slip.help, path=dotted_path(slip.path), fix=fix)
