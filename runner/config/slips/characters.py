"""Finds characters that look like others or like nothing: full-width ones, curly quotes, no-break spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from runner.config.models import model_at
from runner.config.positions import Edit, apply_edits
from runner.config.slips.slip import Slip, Source, replaced
from runner.config.spec_model import model_keys

_ODD_BLANK = re.compile("[\u00a0\u2000-\u200f\u202f\u2060\u3000\ufeff]")
_WIDE = re.compile("[\uff01-\uff5e\u3001\u3002\u3010\u3011\u2010-\u2015\u2212]")
_ASCII: Final = {"、": ",", "。": ".", "【": "[", "】": "]", **dict.fromkeys("‐‑‒–—―−", "-")}
_PAIRS: Final = {
    **dict.fromkeys("“”„‟＂", "“”„‟＂"),
    **dict.fromkeys("‘’‚‛＇", "‘’‚‛＇"),
    "「": "」",
    "『": "』",
    "«": "»",
    "`": "`",
}
_CURLY = re.compile("[“”„‟‘’‚‛][^“”„‟‘’‚‛\"'\n]*[“”„‟‘’‚‛]")
_EDGE: Final = "".join(chr(code) for code in (0x20, 9, 0xA0, *range(0x2000, 0x2010), 0x202F, 0x2060, 0x3000, 0xFEFF))


def odd_indentation(source: Source) -> Iterator[Slip]:
    indents = "".join(source.text[line.start : line.start + line.indent] for line in source.lines)
    is_tabbed = source.wrong is None and "\t" in indents and " " not in indents
    blank = re.compile(f"{_ODD_BLANK.pattern[:-1]}\t]") if is_tabbed else _ODD_BLANK
    odd = {line.start: [*blank.finditer(source.text, line.start, line.start + line.level)] for line in source.lines}
    edits = [Edit(match.start(), match.end(), _blank(match[0])) for found in odd.values() for match in found]
    first = next((line for line in source.lines if odd[line.start]), None)
    if first is None:
        return
    numbers = [str(source.positions.span(start, start).line) for start, found in odd.items() if found][1:]
    more = f" (also in line {', '.join(numbers[:5])}{', …' if len(numbers) > 5 else ''})" if numbers else ""
    with_spaces = "replace each with 2 spaces" if is_tabbed else "replace them with spaces"
    help_ = f"{with_spaces if any(edit.text for edit in edits) else 'remove them'}{more}"
    what = _called(source.text[edits[0].start]).replace(" (", "s (", 1)
    yield Slip(first.start, first.level, f"this line is indented with {what}", help_, tuple(edits))


def _blank(character: str) -> str:
    return "  " if character in "\u3000\t" else " " if character.isspace() else ""


def _called(character: str) -> str:
    """Return what a character is called, as in `no-break space (U+00A0)`."""
    name = unicodedata.name(character, "tab").lower().replace("fullwidth", "full-width")
    return f"{name} (U+{ord(character):04X})"


def wide_colons(source: Source) -> Iterator[Slip]:
    for line in source.lines:
        index = line.key_start + len(line.key)
        if not line.key or (found := source.text.find("：", index, line.value_start)) < 0:
            continue
        written = f"{line.key}: {line.value[:40]}".rstrip()
        colon = ": " if line.value and line.value_start == found + 1 else ":"
        message, help_ = f"this is not ASCII: {_called('：')}", f'write "{written}", with the ASCII ":"'
        yield replaced(line, found, found + 1, colon, message, help_)


def odd_blanks(source: Source) -> Iterator[Slip]:
    """Find characters at the edges of values that look like blanks, and those that have no width anywhere in one."""
    for line in source.lines:
        if source.is_free(line):
            continue
        begin, end = line.key_start + len(line.key), line.value_end
        for match in _ODD_BLANK.finditer(
            source.text, line.key_start, end if source.is_wrong(line) else min(end, line.value_start)
        ):
            at_edge = begin <= match.start() < line.value_start or not source.text[match.end() : end].strip(_EDGE)
            if match[0].isspace() and not at_edge:
                continue
            written = " " if match.start() < line.value_start and match.start() >= begin else ""
            help_ = f"remove the {_called(match[0])}" + (" at its end" if match.end() == end else "")
            if written and source.text[match.start() - 1] in ":：":
                help_ = f'write "{line.key}: {line.value}", with a space in place of the {_called(match[0])}'
            message = f"a character that cannot be seen is in this {'value' if match.start() >= begin else 'key'}"
            yield replaced(line, match.start(), match.end(), written, message, help_)


def odd_quotes(source: Source) -> Iterator[Slip]:
    """Find other quotes than those of YAML around a value, and curly ones inside of brackets."""
    for line in source.lines:
        value, first = line.value, line.value[:1]
        is_quoted = len(value) > 1 and value[:3] != "```" and value[-1] in _PAIRS.get(first, "") and '"' not in value
        is_flow = first in ("[", "{") and source.is_wrong(line)
        spans = [(0, len(value))] if is_quoted else [at.span() for at in _CURLY.finditer(value)] if is_flow else []
        for start, end in spans if first == "`" or not source.is_free(line) else ():
            opening, inner, closing = value[start], value[start + 1 : end - 1], value[end - 1]
            codes = ", ".join(f"U+{ord(sign):04X}" for sign in dict.fromkeys((opening, closing)))
            kind = (
                "backticks" if first == "`" else "curly quotes" if opening in "“”„‟‘’‚‛" else "not the quotes of YAML"
            )
            is_text = not re.fullmatch(r"\d+|true|false", inner)
            written = f'"{inner}"' if is_text else inner
            help_ = f'write "{inner[:60]}" with straight ones' if is_text else f"write {inner} without quotes"
            at = line.value_start
            yield replaced(line, at + start, at + end, written, f"these are {kind} ({codes})", help_)


def wide_characters(source: Source) -> Iterator[Slip]:
    """Find full-width punctuation and long dashes: in brackets if the file is no YAML, else in wrong values."""
    for line in source.lines:
        is_map = line.value[:1] == "（" and line.value[-1] in "）)" and bool(model_keys(model_at(line.path)))
        is_flow = is_map or line.value[:1] in ("[", "{", "【", "［", "｛")
        found = [*_WIDE.finditer(source.text, line.value_start, line.value_end)]
        if not found or source.is_free(line) or not source.is_wrong(line) or (source.wrong is None and not is_flow):
            continue
        edits, end = [], line.value_end
        for match in found:
            plain = _ASCII.get(match[0]) or unicodedata.normalize("NFKC", match[0])
            if is_map and (match.start() == line.value_start or match.end() == end):
                plain = "{" if match.start() == line.value_start else "}"
            is_glued = plain in ",:" and is_flow and not source.text[match.end() : match.end() + 1].isspace()
            edits.append(Edit(match.start(), match.end(), f"{plain} " if is_glued else plain))
        written = apply_edits(source.text[:end], edits)[line.value_start :]
        message = f"this is not ASCII: {_called(found[0][0])}"
        signs = " and ".join(f'"{sign}"' for sign in dict.fromkeys(edit.text.strip() for edit in edits))
        shown = f"`{written[:80]}`" if '"' in written else f'"{written[:80]}"'
        help_ = f"write {shown}, with the ASCII {signs}"
        yield Slip(found[0].start(), 1, message, help_, tuple(edits), line.path)
