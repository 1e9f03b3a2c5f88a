"""Finds slips of the keyboard that YAML refuses or misreads, and mends them in memory so that the rest is checked too.

Only the text of a file with problems is searched. Each slip is certain: the edit changes what YAML reads, not what the
author meant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

from runner.config.document import KeyPath, dotted_path
from runner.config.foreign_words import foreign_word
from runner.config.interpolation import FREE_KEYS
from runner.config.messages import typo_of
from runner.config.models import model_at
from runner.config.outline import Line, outline
from runner.config.positions import Edit, Lines, apply_edits
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, model_keys
from runner.errors import Problem

_MAX_SLIPS: Final = 50
_MAX_CHARACTERS: Final = 100_000
"""Longer files are not searched: the time grows with the square of their lines."""
_ITEMS: Final = ("queues", "producers", "subscribers")
"""Sections whose items are maps: a text in place of one is always wrong."""
_SECTIONS: Final = (*_ITEMS, "events", "exchanges", "resources")
_LISTS: Final = frozenset({"from", "to", "events", "on", "include", "python_path", "urls"})
_ODD_BLANK = re.compile("[\u00a0\u2000-\u200f\u202f\u2060\u3000\ufeff]")
_WIDE = re.compile("[\uff01-\uff5e\u3001\u3002\u3010\u3011]")
_WIDE_NAMES: Final = {
    "：": "colon",
    "，": "comma",
    "、": "comma",
    "；": "semicolon",
    "。": "dot",
    "．": "dot",
    "－": "dash",
}
_ASCII: Final = {"、": ",", "。": ".", "【": "[", "】": "]"}
_PAIRS: Final = {
    **dict.fromkeys("“”„‟＂", "“”„‟＂"),
    **dict.fromkeys("‘’‚‛＇", "‘’‚‛＇"),
    "「": "」",
    "『": "』",
    "«": "»",
    "`": "`",
}
_KEYS_IN_FLOW = re.compile(r"(?<=[{,\s])([\w-]+):(?=[^\s/,}])")
_WORD_LIST = re.compile(r"[\w.*#:/-]+(\s*[,;]\s*[\w.*#:/-]+)+[,;]?")


_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_COMMENT_BEHIND = re.compile(r"(?<=\s)(//+)(\s[^\n]*)")
_COMMENT_LINE = re.compile(r"(?:^|(?<=\n))[ \t]*(//+|/\*+)([^\n]*)")
_IS_ALIAS: Final = 'a value that starts with "*" is an alias of YAML'


class Slip(NamedTuple):
    """A slip: where it is shown, what is wrong, what to write, and the edits that mend it."""

    start: int
    length: int
    message: str
    help: str
    edits: tuple[Edit, ...]
    path: KeyPath = ()


class _Source(NamedTuple):
    """A text, its lines, and the numbers of the lines that have a problem; None if the text is not YAML."""

    text: str
    lines: list[Line]
    positions: Lines
    wrong: Collection[int] | None

    def is_wrong(self, line: Line) -> bool:
        return self.wrong is None or self.positions.span(line.start, line.start).line in self.wrong

    def is_free(self, line: Line) -> bool:
        return bool(FREE_KEYS & {*line.path}) or line.path[:1] == ("x-",)


def mend(lines: Lines, wrong: Collection[int] | None) -> tuple[Lines, list[Problem]]:
    """Return the lines with all slips mended, and a problem for each slip. `wrong` is that of `_Source`."""
    problems: list[Problem] = []
    if len(lines.text) > _MAX_CHARACTERS:
        return lines, problems
    parsed = outline(lines.text)
    for rule in _RULES:
        source = _Source(lines.text, parsed, lines, wrong)
        found = list(islice(rule(source), _MAX_SLIPS))
        problems += [_problem(slip, lines) for slip in found]
        edits = sorted({edit for slip in found for edit in slip.edits})
        if edits and all(before.end <= after.start for before, after in pairwise(edits)):
            lines = lines.mended(edits)
            parsed = outline(lines.text)
    return lines, problems


def _problem(slip: Slip, lines: Lines) -> Problem:
    span = lines.span(slip.start, slip.start + slip.length)
    fix = lines.fix(slip.edits)
    return span.problem("yaml-syntax", slip.message, slip.help, path=dotted_path(slip.path), fix=fix)


# Characters


def _odd_indentation(source: _Source) -> Iterator[Slip]:
    odd = [line for line in source.lines if _ODD_BLANK.search(source.text, line.start, line.start + line.level)]
    if not odd:
        return
    edits = [
        Edit(match.start(), match.end(), _blank(match[0]))
        for line in odd
        for match in _ODD_BLANK.finditer(source.text, line.start, line.start + line.level)
    ]
    numbers = [source.positions.span(line.start, line.start).line for line in odd]
    what = _called(source.text[edits[0].start]).replace(" (", "s (", 1)
    more = (
        f" (also in line {', '.join(map(str, numbers[1:6]))}{', …' if len(numbers) > 6 else ''})" if numbers[1:] else ""
    )
    verb = "replace them with spaces" if any(edit.text for edit in edits) else "remove them"
    yield Slip(
        odd[0].start,
        odd[0].level,
        f"this line is indented with {what}",
        f"{verb}{more}",
        tuple(edits),
    )


def _blank(character: str) -> str:
    return "  " if character == "\u3000" else " " if character.isspace() else ""


def _called(character: str) -> str:
    """Return what a character is called, as in `no-break space (U+00A0)`."""
    name = unicodedata.name(character, "character").lower()
    return f"{name} (U+{ord(character):04X})"


def _wide_colons(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        index = line.key_start + len(line.key)
        if not line.key or (found := source.text.find("：", index, line.value_start)) < 0:
            continue
        space = " " if line.value and line.value_start == found + 1 else ""
        help_ = (
            f'write "{line.key}: {line.value[:40]}", with the ASCII ":"'
            if line.value
            else f'write "{line.key}:", with the ASCII ":"'
        )
        yield Slip(
            found,
            1,
            "this colon is a full-width one (U+FF1A)",
            help_,
            (Edit(found, found + 1, f":{space}"),),
            line.path,
        )


def _odd_blanks(source: _Source) -> Iterator[Slip]:
    """Find characters at the edges of values that look like blanks, and those that have no width anywhere in one."""
    for line in source.lines:
        if source.is_free(line) or not source.is_wrong(line):
            continue
        begin = line.key_start + len(line.key)
        end = line.value_end
        for match in _ODD_BLANK.finditer(source.text, line.key_start, end):
            at_edge = begin <= match.start() < line.value_start or not source.text[match.end() : end].strip(_EDGE)
            if match[0].isspace() and not at_edge:
                continue
            written = " " if match.start() < line.value_start and match.start() >= begin else ""
            help_ = f"remove the {_called(match[0])}" + (" at its end" if match.end() == end else "")
            yield Slip(
                match.start(),
                1,
                "a character that cannot be seen is in this value",
                help_,
                (Edit(match.start(), match.end(), written),),
                line.path,
            )


_EDGE: Final = "".join(chr(code) for code in (0x20, 9, 0xA0, *range(0x2000, 0x2010), 0x202F, 0x2060, 0x3000, 0xFEFF))


def _odd_quotes(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        value = line.value
        if len(value) < 2 or value[0] not in _PAIRS or value[-1] not in _PAIRS[value[0]] or '"' in value:
            continue
        if source.is_free(line) and value[0] != "`":
            continue
        signs = dict.fromkeys((value[0], value[-1]))
        codes = ", ".join(f"U+{ord(sign):04X}" for sign in signs)
        kind = (
            "backticks" if value[0] == "`" else "curly quotes" if value[0] in "“”„‟‘’‚‛" else "not the quotes of YAML"
        )
        edits = (Edit(line.value_start, line.value_start + 1, '"'), Edit(line.value_end - 1, line.value_end, '"'))
        help_ = f'write "{value[1:-1][:60]}" with straight ones'
        yield Slip(line.value_start, len(value), f"these are {kind} ({codes})", help_, edits, line.path)


def _wide_characters(source: _Source) -> Iterator[Slip]:
    """Find full-width punctuation: in brackets if the file is not YAML, else in values with a problem."""
    for line in source.lines:
        is_flow = line.value[:1] in ("[", "{", "【", "［", "｛")
        if source.is_free(line) or not source.is_wrong(line) or (source.wrong is None and not is_flow):
            continue
        for match in _WIDE.finditer(source.text, line.value_start, line.value_end):
            character = match[0]
            plain = _ASCII.get(character) or unicodedata.normalize("NFKC", character)
            behind = source.text[match.end() : match.end() + 1]
            spaced = f"{plain} " if plain in ",:" and is_flow and not behind.isspace() else plain
            name = _WIDE_NAMES.get(character, f'"{plain}"')
            written = apply_edits(
                line.value,
                [
                    Edit(found.start(), found.end(), _ASCII.get(found[0]) or unicodedata.normalize("NFKC", found[0]))
                    for found in _WIDE.finditer(line.value)
                ],
            )
            help_ = f'write "{written[:60]}", with the ASCII "{plain}"'
            yield Slip(
                match.start(),
                1,
                f"this {name} is a full-width one (U+{ord(character):04X})",
                help_,
                (Edit(match.start(), match.end(), spaced),),
                line.path,
            )


# Indentation


def _dedented(source: _Source) -> Iterator[Slip]:
    """Find a key of an item that stands at the level of the item's name, or at that of the section."""
    lines = source.lines
    for index, line in enumerate(lines):
        if not _NAME.fullmatch(line.key) or line.dash or not (target := _home(lines, index)):
            continue
        home, column = target
        yield _moved(
            source,
            index,
            column,
            f'"{line.key}" is indented less than the keys above it'
            if home.path[:-1] != line.path[:-1] and len(home.path) > len(line.path)
            else f'"{line.key}" is not indented',
            home,
        )


def _home(lines: list[Line], index: int) -> tuple[Line, int] | None:
    """Return the key that a dedented key belongs beside, and its column. None if it is where it belongs."""
    line, path = lines[index], lines[index].path
    above = next((other for other in reversed(lines[:index]) if other.key and len(other.path) == len(path)), None)
    if above is None or above.path[:-1] != path[:-1]:
        return None
    children = _below(lines[:index], above.path)
    if len(path) == 1 and above.path[0] in _SECTIONS and _is_unknown(line.key):
        item = children[-1].path if children else ()
        if line.key in model_keys(model_at(item)):
            children = _below(lines[:index], item)
        elif above.value or (line.value and above.path[0] in _ITEMS) or not _is_name(line.key):
            return None
        else:
            return (children[0], children[0].indent) if children else (above, above.indent + 2)
    elif len(path) != 2 or path[0] not in _ITEMS or not _is_option(line, lines[index + 1 :]):
        return None
    if not children or line.key in {other.key for other in children}:
        return None
    return (children[0], children[0].indent) if line.key in model_keys(model_at(children[0].path[:-1])) else None


def _below(lines: list[Line], path: KeyPath) -> list[Line]:
    """Return the lines with the keys of the map at a path."""
    return [other for other in lines if other.path[:-1] == path and other.key]


def _is_unknown(key: str) -> bool:
    return key not in (*model_keys(PipelineSpec), *PipelineSpec.reserved) and not key.startswith("x-")


def _is_name(key: str) -> bool:
    """Whether an unknown key at the top level may be the name of an item, and no other word for a section."""
    known = model_keys(PipelineSpec)
    return foreign_word("pipeline", key) is None and typo_of(key, known) is None


def _is_option(line: Line, below: list[Line]) -> bool:
    """Whether a key where the name of an item is expected is an option: it has a value or keys that no item has."""
    if line.key not in model_keys(model_at((str(line.path[0]), "*"))):
        return False
    inner = next((other for other in below if len(other.path) == 3 and other.path[:2] == line.path), None)
    return bool(line.value) or (inner is not None and inner.key not in model_keys(model_at(line.path)))


def _moved(source: _Source, index: int, column: int, message: str, home: Line) -> Slip:
    """Return the slip of a key, moved to a column with the lines below it that are not there yet."""
    line = source.lines[index]
    shift = column - line.indent
    edits = [Edit(line.start, line.start, " " * shift) if shift > 0 else Edit(line.start, line.start - shift, "")]
    below = []
    for other in source.lines[index + 1 :]:
        if other.indent <= line.indent and not (other.dash and other.indent == line.indent):
            break
        below.append(other)
    if below and not line.value and (shift < 0 or below[0].indent <= column):
        edits += [
            Edit(other.start, other.start, " " * shift) if shift > 0 else Edit(other.start, other.start - shift, "")
            for other in below
        ]
    number = source.positions.span(home.start, home.start).line
    help_ = f"indent it by {abs(shift)} space{'s'[: abs(shift) != 1]}{'' if shift > 0 else ' less'}"
    help_ += ", with what follows, " if len(edits) > 1 else ", " if home.indent == column else " "
    place = f'"{home.key}" in line {number}' if home.indent == column else f'"{home.key}:" in line {number}'
    help_ += f"as {place}" if home.indent == column else f"to put it under {place}"
    return Slip(line.key_start, len(line.key), message, help_, tuple(edits), line.path)


def _too_deep(source: _Source) -> Iterator[Slip]:
    """Find a key that is indented deeper than the key above it, which has a value; and one between two levels."""
    if source.wrong is not None:
        return
    for index, line in enumerate(source.lines):
        above = source.lines[index - 1] if index else None
        if above is None or not line.key or line.dash or not above.key or above.dash:
            continue
        if "\t" in source.text[line.start : line.start + line.indent]:
            continue
        parent = model_at(above.path[:-1])
        if (
            line.indent > above.indent
            and above.value
            and above.value[0] not in "|>[{\"'&"
            and line.key in model_keys(parent)
        ):
            yield _moved(source, index, above.indent, f'"{line.key}" is indented deeper than the key above it', above)
            return
        if siblings := _siblings_of_uneven(source.lines, index):
            yield _moved(
                source, index, siblings.indent, f'"{line.key}" does not line up with the keys above it', siblings
            )
            return


def _siblings_of_uneven(lines: list[Line], index: int) -> Line | None:
    """Return a key of the map that a key between two levels belongs in, None if that is not certain."""
    line = lines[index]
    columns: dict[int, Line] = {}
    for other in reversed(lines[:index]):
        if other.key and not other.dash and all(other.indent < column for column in columns):
            columns[other.indent] = other
    if line.indent in columns or not columns or not 0 < line.indent < max(columns):
        return None
    fitting = [other for other in columns.values() if line.key in model_keys(model_at(other.path[:-1]))]
    return fitting[0] if len(fitting) == 1 else None


# Signs


def _missing_space(source: _Source) -> Iterator[Slip]:
    message = 'a space is missing after the ":"'
    for line in source.lines:
        if line.value[:1] in ("{", "["):
            for match in _KEYS_IN_FLOW.finditer(_unquoted(line.value)):
                if match[1] in _language_keys():
                    at = line.value_start + match.end()
                    rest = re.match(r"[^,}\]\s]*", line.value[match.end() :])
                    help_ = f'write "{match[1]}: {rest[0] if rest else ""}"'
                    yield Slip(at - 1, 1, message, help_, (Edit(at, at, " "),), line.path)
        elif not line.key and (key := re.match(r"([\w-]+):(?=[^\s:/])", line.value)):
            at = line.value_start + key.end()
            if key[1] in model_keys(model_at(line.path)):
                help_ = f'write "{key[1]}: {line.value[key.end() :][:60]}"'
                yield Slip(at - 1, 1, message, help_, (Edit(at, at, " "),), line.path)


def _missing_colon(source: _Source) -> Iterator[Slip]:
    """Find `key value` and `key = value`."""
    for line in source.lines:
        match = None if line.key else re.fullmatch(r"([\w-]+)(\s*=\s*|\s+(?=\S))(.*)", line.value)
        if match is None or match[1] not in model_keys(model_at(line.path)):
            continue
        message = 'a ":" is missing after this key'
        if "=" in match[2]:
            message = 'YAML writes ":" between a key and its value, not "="'
        written = f"{match[1]}: {match[3]}".rstrip()
        yield _rewritten(line, written, message, f'write "{written[:60]}"')


def _missing_dash_space(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        if not line.key and re.match(r"-[^\s\d-]", line.value) and line.path and line.path[-1] in {*_LISTS, "bind"}:
            help_ = f'write "- {line.value[1:61]}"'
            yield _rewritten(line, f"- {line.value[1:]}", 'a space is missing after the "-"', help_)


def _list_in_place_of_map(source: _Source) -> Iterator[Slip]:
    for index, line in enumerate(source.lines):
        keys = model_keys(model_at(line.path)) if line.key and not line.value else []
        items = []
        for other in source.lines[index + 1 :]:
            if other.indent < line.indent or (other.indent == line.indent and not other.dash):
                break
            items.append(other)
        is_map = all(item.key in keys and len(item.dash) == 2 for item in items)
        if items and is_map and len({item.key for item in items}) == len(items):
            blank = "" if items[0].indent > line.indent else "  "
            edits = tuple(Edit(item.start + item.indent, item.key_start, blank) for item in items)
            help_ = f'remove {"the" if len(items) == 1 else f"the {len(items)}"} "- ": a map has one key on each line'
            message = f'"{line.key}" is a map, not a list'
            yield Slip(line.key_start, len(line.key), message, help_, edits, line.path)


def _named_items(source: _Source) -> Iterator[Slip]:
    """Find sections that are lists of maps: with a `name`, or each with the name as its only key."""
    for line in source.lines:
        is_item = len(line.path) == 3 and isinstance(line.path[1], int) and line.path[0] in _SECTIONS
        name = line.value if line.key == "name" else "" if line.value else line.key
        if not is_item or len(line.dash) != 2 or not name:
            continue
        start, end = line.start + line.indent, line.value_end
        message, help_ = f'"{line.path[0]}" is a map of names, not a list', f'write "{name}:", without the "- "'
        yield Slip(start, end - start, message, help_, (Edit(start, end, f"{name}:"),), line.path[:1])


# Values


def _comments(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        if source.is_free(line) or not source.is_wrong(line):
            continue
        pattern = _COMMENT_BEHIND if line.key else _COMMENT_LINE
        for match in pattern.finditer(_unquoted(line.value)):
            start, text = line.value_start + match.start(1), match[2].strip().removesuffix("*/").strip()
            edits = (Edit(start, line.value_start + match.end(), f"# {text}"),)
            help_ = f'write "# {text[:60]}"'
            yield Slip(start, len(match[0].strip()), 'a comment starts with "#"', help_, edits, line.path)
        glued = re.match(r"[\w.:-]*\w(#)(?=[A-Za-z ])", line.value) if line.key and source.wrong is not None else None
        if glued:
            at = line.value_start + glued.start(1)
            message, help_ = '"#" starts a comment only behind a blank', 'put a space before "#" to start a comment'
            yield Slip(at, 1, message, help_, (Edit(at, at, " "),), line.path)


def _trailing_signs(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        is_plain = len(line.value) > 1 and line.value[0] not in "[{|>!"
        if is_plain and line.value[-1] in ",;" and not source.is_free(line) and source.is_wrong(line):
            at, sign = line.value_end - 1, line.value[-1]
            message, help_ = f'"{sign}" does not end a value in YAML', f'remove the "{sign}"'
            yield Slip(at, 1, message, help_, (Edit(at, at + 1, ""),), line.path)


def _lists_of_words(source: _Source) -> Iterator[Slip]:
    for line in source.lines:
        inner = line.value.strip("\"'")
        is_wrong = source.wrong is not None and source.is_wrong(line) and not source.is_free(line)
        if is_wrong and line.key in _LISTS and "://" not in inner and _WORD_LIST.fullmatch(inner):
            words = ", ".join(word.strip() for word in re.split("[,;]", inner) if word.strip())
            message, help_ = "several names are written as one text", f"write a list: [{words}]"
            yield _rewritten(line, f"[{words}]", message, help_)


def _special_starts(source: _Source) -> Iterator[Slip]:
    """Find values that YAML reads as an anchor, an alias or a comment, although they are meant as text."""
    anchors = {*re.findall(r"&([^\s,\[\]{}]+)", source.text)}
    aliases = {*re.findall(r"\*([^\s,\[\]{}]+)", source.text)}
    for line in source.lines:
        value, quoted = line.value, f'"{line.value}"'
        is_wrong = source.wrong is None or source.is_wrong(line)
        if not (line.key or line.dash) or not is_wrong or (value[:1] == "&" and value[1:] in aliases):
            continue
        if re.fullmatch(r"&[\w.-]+", value) and not source.is_free(line):
            help_ = f'remove the "&": write "{value[1:]}"'
            yield _rewritten(line, value[1:], f'"{value}" is an anchor, and no value', help_)
        elif re.fullmatch(r"&[\w.-]+", value):
            yield _rewritten(line, quoted, f'"{value}" is an anchor, and no value', f"put it in quotes: {quoted}")
        elif re.fullmatch(r"\*|\*[.\w]*[.#*][.\w#*]*", value) and value[1:] not in anchors:
            yield _rewritten(line, quoted, _IS_ALIAS, f"put it in quotes: {quoted}")
        elif value[:1] in ("@", "%") or (value[:1] == "`" and value[-1] != "`"):
            if '"' not in value and "\\" not in value:
                message = f'a value cannot start with "{value[0]}"'
                yield _rewritten(line, quoted, message, f"put it in quotes: {quoted[:60]}")
        elif value[:1] == "[":
            yield from _in_list(source, line, anchors)


def _in_list(source: _Source, line: Line, anchors: Collection[str]) -> Iterator[Slip]:
    """Find `#` and `*` without quotes in a list in brackets."""
    match = re.compile(r"\[([^\]\"'{}\n]*)\]").match(source.text, line.value_start)
    words = [word.strip() for word in match[1].split(",")] if match else []
    bad = [word for word in words if word.startswith(("#", "*")) and word[1:] not in anchors]
    if match is None or not bad:
        return
    quoted = ", ".join(f'"{word}"' if word in bad else word for word in words)
    start = line.value_start + match[0].index(bad[0])
    message = '"#" starts a comment here, so this "[" is not closed' if bad[0][0] == "#" else _IS_ALIAS
    edits = (Edit(match.start(), match.end(), f"[{quoted}]"),)
    yield Slip(start, len(bad[0]), message, f"put it in quotes: [{quoted}]", edits, line.path)


def _second_colon(source: _Source) -> Iterator[Slip]:
    """Find `description: a: b`, and `handler: a.b: c`."""
    for line in source.lines if source.wrong is None else ():
        is_plain = line.value[:1] not in ("", "[", "{", '"', "'", "|", ">", "&", "*", "!")
        if not line.key or not is_plain or not re.search(r":(\s|$)", line.value):
            continue
        joined = re.fullmatch(r"([\w.]+)\s*:\s+([\w.]+)", line.value)
        if joined and line.key in ("handler", "factory", "schema"):
            path = f"{joined[1]}:{joined[2]}"
            yield _rewritten(line, path, "an import path has no space in it", f'write "{path}"')
        elif line.key in ("description", "owner", "name") and not {'"', "\\"} & {*line.value}:
            quoted = f'"{line.value}"'
            yield _rewritten(line, quoted, 'a second ":" in one line', f"put the value in quotes: {quoted[:60]}")


def _rewritten(line: Line, text: str, message: str, help_: str) -> Slip:
    """Return the slip of a whole value, in place of which a text is meant."""
    edits = (Edit(line.value_start, line.value_end, text),)
    return Slip(line.value_start, len(line.value), message, help_, edits, line.path)


def _unquoted(text: str) -> str:
    """Return a text of the same length with blanks in place of what is in quotes."""
    return re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', lambda match: '"' * len(match[0]), text)


def _language_keys() -> frozenset[str]:
    found: list[type[SpecModel]] = [SpecModel]
    for model in found:
        found += model.__subclasses__()
    return frozenset(key for model in found for key in model_keys(model))


_RULES: tuple[Callable[[Any], Iterator[Slip]], ...] = (
    _odd_indentation,
    _wide_colons,
    _odd_quotes,
    _odd_blanks,
    _wide_characters,
    _comments,
    _missing_space,
    _missing_colon,
    _missing_dash_space,
    _named_items,
    _dedented,
    _too_deep,
    _list_in_place_of_map,
    _trailing_signs,
    _lists_of_words,
    _special_starts,
    _second_colon,
)
