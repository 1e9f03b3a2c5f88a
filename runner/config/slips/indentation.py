"""Finds keys that are indented too little or too much, by the keys that may stand there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, takewhile

from runner.config.document import KeyPath
from runner.config.foreign_words import foreign_word
from runner.config.messages import typo_of
from runner.config.models import model_at
from runner.config.outline import Line
from runner.config.positions import Edit
from runner.config.slips.slip import ITEMS, LISTS, PATHS, SECTIONS, Slip, Source, replaced, unquoted
from runner.config.spec import PipelineSpec
from runner.config.spec_model import model_keys

_NAMED = (*ITEMS, "resources")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")


def dedented(source: Source) -> Iterator[Slip]:
    """Find a key of an item that stands at the level of the item's name, or at that of the section."""
    lines = source.lines
    for index, line in enumerate(lines):
        if not _NAME.fullmatch(line.key) or line.dash or not (target := _home(lines, index)):
            continue
        home, column = target
        is_less = home.path[:-1] != line.path[:-1] and len(home.path) > len(line.path)
        message = f'"{line.key}" is {"indented less than the keys above it" if is_less else "not indented"}'
        yield _moved(source, index, column, message, home)


def _home(lines: list[Line], index: int) -> tuple[Line, int] | None:
    """Return the key that a dedented key belongs beside, and its column. None if it is where it belongs."""
    line, path = lines[index], lines[index].path
    above = next((other for other in reversed(lines[:index]) if other.key and len(other.path) == len(path)), None)
    if above is None or above.path[:-1] != path[:-1]:
        return None
    children = _below(lines[:index], above.path)
    if len(path) == 1 and above.path[0] in SECTIONS and _is_unknown(line.key):
        item = children[-1].path if children else ()
        if line.key in model_keys(model_at(item)):
            children = _below(lines[:index], item)
        elif above.value or not _is_name(lines[index:], above, children):
            return None
        else:
            column = children[0].indent if children else above.indent + 2
            return (children[0] if children else above, column) if column != line.indent else None
    elif len(path) != 2 or path[0] not in _NAMED or not _is_option(line, lines[index + 1 :]):
        return None
    if not children or line.key in {other.key for other in children} or children[0].indent == line.indent:
        return None
    return (children[0], children[0].indent) if line.key in model_keys(model_at(children[0].path[:-1])) else None


def _below(lines: list[Line], path: KeyPath) -> list[Line]:
    """Return the lines with the keys of the map at a path."""
    return [other for other in lines if other.path[:-1] == path and other.key]


def _is_unknown(key: str) -> bool:
    return key not in (*model_keys(PipelineSpec), *PipelineSpec.reserved) and not key.startswith("x-")


def _is_name(lines: list[Line], section: Line, others: list[Line]) -> bool:
    """Whether an unknown key at the top level, the first line, may be the name of an item of a section.

    It is no other word for a section, unless that has no items yet, `others`, and the first key below it, if there is
    one, is an option of these items. A value of an item that is a map has its options.
    """
    if section.path[0] == "events" and re.fullmatch(r"[\w.]+:\w+", lines[0].value):
        return True
    if lines[0].value and section.path[0] in ITEMS:
        options = _keys_in([], lines[0])
        return bool(options) and options <= {*model_keys(model_at((section.path[0], "*")))}
    is_word = foreign_word("pipeline", lines[0].key) or typo_of(lines[0].key, model_keys(PipelineSpec))
    below = next((other for other in lines[1:] if other.key and other.path[:-1] == lines[0].path), None)
    if below is None or below.key not in model_keys(model_at((section.path[0], "*"))):
        return not is_word and below is None
    return not is_word or not others


def _is_option(line: Line, below: list[Line]) -> bool:
    """Whether a key where the name of an item is expected is an option: it has a value or keys that no item has."""
    if line.key not in model_keys(model_at((str(line.path[0]), "*"))):
        return False
    inner = next((other for other in below if len(other.path) == 3 and other.path[:2] == line.path), None)
    return bool(line.value) or (inner is not None and inner.key not in model_keys(model_at(line.path)))


def _moved(source: Source, index: int, column: int, message: str, home: Line) -> Slip:
    """Return the slip of a key, moved to a column with the lines below it that are not there yet."""
    line = source.lines[index]
    shift = column - line.indent
    below = [*takewhile(lambda other: other.indent + bool(other.dash) > line.indent, source.lines[index + 1 :])]
    moves_below = below and not line.value and (shift < 0 or below[0].indent <= column)
    moved = [line, *(below if moves_below else ())]
    edits = tuple(Edit(other.start, other.start + max(0, -shift), " " * shift) for other in moved)
    place = f"line {source.positions.span(home.start, home.start).line}"
    help_ = _by(shift)
    is_beside = home.indent == column
    help_ += ", with what follows, " if moves_below else ", " if is_beside else " "
    help_ += f'as "{home.key}" in {place}' if is_beside else f'to put it under "{home.key}:" in {place}'
    return Slip(line.key_start, len(line.key), message, help_, edits, line.path)


def _by(shift: int) -> str:
    return f"indent it by {abs(shift)} space{'s'[: abs(shift) != 1]}{'' if shift > 0 else ' less'}"


def too_deep(source: Source) -> Iterator[Slip]:
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
        is_deeper = line.indent > above.indent and above.value and above.value[0] not in "|>\"'&"
        is_beside = above.value[:1] not in ("[", "{") or line.key not in model_keys(model_at(above.path))
        if is_deeper and is_beside and line.key in model_keys(parent):
            yield _moved(source, index, above.indent, f'"{line.key}" is indented deeper than the key above it', above)
            return
        if siblings := _siblings_of_uneven(source.lines, index):
            message = f'"{line.key}" does not line up with the keys above it'
            yield _moved(source, index, siblings.indent, message, siblings)
            return


def below_a_text(source: Source) -> Iterator[Slip]:
    """Find keys below a value that stands for a map, as `to: done` with `delay: 2h` below it, indented."""
    for index, line in enumerate(source.lines if source.wrong is None else ()):
        if not line.key or not re.fullmatch(r"[^|>\[{\"'&*\s]\S*", line.value):
            continue
        model = model_at(line.path) if model_keys(model_at(line.path)) else model_at((*line.path, 0))
        deeper = [other for other in source.lines[index + 1 :] if other.path[:-1] == line.path]
        if (
            not deeper
            or not model.short_form
            or not all(other.key in model_keys(model) and other.value for other in deeper)
        ):
            continue
        parts = [(model.short_form, line.value), *((other.key, other.value) for other in deeper)]
        written = f"{{{', '.join(f'{key}: {value}' for key, value in parts)}}}"
        edits = (Edit(line.value_start, deeper[-1].value_end, written),)
        message = f'"{deeper[0].key}" is a key of the map "{line.key}", which has a text here'
        yield Slip(deeper[0].key_start, len(deeper[0].key), message, f'write "{line.key}: {written}"', edits, line.path)


def _columns(lines: list[Line]) -> dict[int, Line]:
    """Return the last key of each map that is open behind some lines, by its column."""
    columns: dict[int, Line] = {}
    for other in reversed(lines):
        if other.key and not other.dash and all(other.indent < column for column in columns):
            columns[other.indent] = other
    return columns


def _siblings_of_uneven(lines: list[Line], index: int) -> Line | None:
    """Return a key of the map that a key between two levels belongs in, None if that is not certain."""
    line = lines[index]
    columns = _columns(lines[:index])
    if line.indent in columns or not columns or not 0 < line.indent < max(columns):
        return None
    fitting = [other for other in columns.values() if line.key in model_keys(model_at(other.path[:-1]))]
    return fitting[0] if len(fitting) == 1 else None


def children_not_indented(source: Source) -> Iterator[Slip]:
    """Find the keys of a map at the level of the map's own key, as `retry:` with `attempts:` and `delay:` below it."""
    for index, line in enumerate(source.lines):
        if not line.key or line.value or line.dash or not (keys := model_keys(model_at(line.path))):
            continue
        own, found = model_keys(model_at(line.path[:-1])), []
        for other in source.lines[index + 1 :]:
            if other.path[:-1] != line.path[:-1] or other.key not in keys or other.key in own or other.dash:
                break
            found.append(other)
        if found and source.is_wrong(found[0]):
            edits = tuple(Edit(other.start, other.start, "  ") for other in found)
            help_ = f"indent {'it' if len(found) == 1 else f'these {len(found)} lines'} by 2 spaces"
            message = f'"{found[0].key}" is a key of "{line.key}", and is not indented below it'
            yield Slip(found[0].key_start, len(found[0].key), message, help_, edits, line.path)


def item_too_deep(source: Source) -> Iterator[Slip]:
    """Find the name of an item among the options of the item above it."""
    for index, line in enumerate(source.lines):
        if len(line.path) != 3 or line.path[0] not in _NAMED or line.value or line.dash or not line.key:
            continue
        options = model_keys(model_at(line.path[:-1]))
        inner = {other.key for other in source.lines[index + 1 :] if other.path[:-1] == line.path}
        if not inner:  # its options stand beside it, as a second time among those of the item above it
            beside = [other.key for other in source.lines[:index] if other.path[:-1] == line.path[:-1]]
            inner = {other.key for other in source.lines[index + 1 :] if other.path[:-1] == line.path[:-1]}
            inner = inner if inner & {*beside} else set()
        above = next((other for other in source.lines[:index] if other.path == line.path[:-1]), None)
        is_item = (
            line.key not in options
            and {"handler", "from", "to", "file", "http", "factory"} & inner
            and inner <= {*options}
        )
        if is_item and above is not None and source.is_wrong(line):
            message = f'"{line.key}" is indented deeper than the names above it'
            yield _moved(source, index, above.indent, message, above)


def option_too_deep(source: Source) -> Iterator[Slip]:
    """Find a key at the end of a map that belongs beside the map, as `timeout` behind `retry: delay`."""
    for index, line in enumerate(source.lines):
        parent, beside = line.path[:-1], model_keys(model_at(line.path[:-2]))
        inner = model_keys(model_at(parent)) if line.key and not line.dash and source.is_wrong(line) else []
        later = [other.key for other in source.lines[index:] if other.path[:-1] == parent]
        there = {other.key for other in source.lines if other.path[:-1] == line.path[:-2]}
        head = next((other for other in source.lines[:index] if other.path == parent), None)
        is_last = len(parent) > 1 and all(key in beside and key not in (*inner, *there) for key in later)
        if inner and head and is_last and not (foreign_word(str(parent[-1]), line.key) or typo_of(line.key, inner)):
            message = f'"{line.key}" is no key of "{parent[-1]}", but one beside it'
            yield _moved(source, index, head.indent, message, head)


def first_line(source: Source) -> Iterator[Slip]:
    """Find the first line of a pipeline, which is indented unlike the others."""
    if not source.lines:
        return
    first, roots = source.lines[0], [line.key for line in source.lines if not line.level]
    is_root = first.key in model_keys(PipelineSpec) and {*roots} & {"version", *ITEMS}
    if source.wrong is None and first.indent and not first.dash and is_root:
        message = "the first line is indented, and the others are not"
        yield replaced(first, first.start, first.start + first.indent, "", message, _by(-first.indent))


def sections_inside(source: Source) -> Iterator[Slip]:
    """Find a section that is indented below another one, and one that is named twice."""
    level = {line.indent for line in source.lines if len(line.path) == 1}
    for index, line in enumerate(source.lines):
        name, section = line.key, line.path[0] if len(line.path) == 2 else ""
        if not section or name not in (*SECTIONS, "defaults") or line.value or line.dash or line.indent in level:
            continue
        below = _deeper(source.lines[index + 1 :], line.indent)
        after = [other for other in source.lines[index + 1 :] if other.path[:1] == (section,)]
        if not any(map(source.is_wrong, (line, *below, *after))):
            continue
        keys, own = model_keys(model_at((name, "*"))), {*model_keys(model_at((section, "*")))}
        head = next(other for other in source.lines if other.path == (section,))
        inner = [_keys_in(source.lines, other) for other in after if len(other.path) == 2 and other.key]
        is_other = all(each <= {*keys} for each in inner) and not all(each <= own for each in inner)
        is_other = is_other or (
            name == "defaults" and {other.key for other in after[:1]} <= {*model_keys(model_at((name,)))}
        )
        if name != section and not below and after and is_other:
            yield _moved(source, index, head.indent, f'"{name}" is indented below "{section}"', head)
            continue
        if name != section and below and all(other.key in keys for other in below if len(other.path) == 4):
            yield _moved(source, index, head.indent, f'"{name}" is indented below "{section}"', head)
        elif name == section and not any(other.key in keys for other in below if len(other.path) == 3):
            shift = below[0].indent - line.indent if below else 0
            edits = [Edit(other.start, other.start + shift, "") for other in below]
            end = source.text.find("\n", line.start) + 1
            help_ = "remove this line" + (f", and indent what is below it by {shift} spaces less" if below else "")
            message = f'"{name}:" is written twice'
            yield Slip(line.key_start, len(name), message, help_, (Edit(line.start, end, ""), *edits), line.path)


def uneven_items(source: Source) -> Iterator[Slip]:
    """Find an item of a list that does not line up with the one above it, and a value that is not indented."""
    for above, line in pairwise(source.lines):
        is_item = not above.key and not line.key and above.dash and line.dash and above.path[:-1] == line.path[:-1]
        if is_item and line.indent != above.indent and source.is_wrong(above if source.wrong else line):
            shift, message = above.indent - line.indent, "this item does not line up with the one above it"
        elif above.key in (*PATHS, *LISTS) and not above.value and source.wrong is None and line.indent == above.indent:
            shift, message = 2, f'the value of "{above.key}" is not indented'
            if line.key or line.dash or not re.fullmatch(r"\w[\w.:/-]*", line.value):
                continue
        else:
            continue
        edits = (Edit(line.start, line.start + max(0, -shift), " " * shift),)
        yield Slip(line.start + line.indent, len(line.dash + line.value), message, _by(shift), edits, above.path)


def missing_names(source: Source) -> Iterator[Slip]:
    """Find the options of an item right below their section, without the item's name."""
    for index, line in enumerate(source.lines):
        below = _deeper(source.lines[index + 1 :], line.indent) if line.path in [(name,) for name in ITEMS] else []
        inner = _deeper(below, below[0].indent - 1) if below else []
        options, keys = [other for other in inner if len(other.path) == 2], model_keys(model_at((line.key, "*")))
        handler = next((other.value for other in options if other.key == "handler"), "")
        is_alone = all(other.key in keys and not other.dash for other in options)
        if not handler or line.value or below[0] is not options[0] or not is_alone:
            continue
        first, shift = options[0], "  " if options[0].indent < 4 else ""
        name = re.sub(r"\W+", "_", handler.rpartition(":")[2])
        help_ = f'write a name on a line above them, as in "{name}:"'
        help_ += ", and indent them by 2 spaces" if shift else ""
        edits = [Edit(first.start, first.start, f"{' ' * (first.indent - 2 + len(shift))}{name}:\n{shift}")]
        edits += [Edit(other.start, other.start, shift) for other in below[1:] if shift]
        message = f"these are options of a {line.key[:-1]} whose name is missing"
        yield Slip(first.key_start, len(first.key), message, help_, tuple(edits), line.path, is_certain=False)


def missing_heads(source: Source) -> Iterator[Slip]:
    """Find items that do not fit below their section, behind others that do: the line of their own one is missing."""
    there = {line.key for line in source.lines if len(line.path) == 1}
    for section in SECTIONS if source.wrong is not None else ():
        names = [line for line in source.lines if line.path[:-1] == (section,) and line.key]
        inner = [_keys_in(source.lines, line) for line in names]
        own = {*model_keys(model_at((section, "*")))}
        at = next((index for index, keys in enumerate(inner) if not keys <= own), 0)
        rest = frozenset[str]().union(*inner[at:])
        fits = [
            name for name in (*_NAMED, "events") if name not in there and rest <= {*model_keys(model_at((name, "*")))}
        ]
        if (
            at
            and len(fits) == 1
            and fits[0] not in {line.key for line in names}
            and any(map(source.is_wrong, _below(source.lines, names[at].path) or [names[at]]))
        ):
            line, kind = names[at], fits[0]
            message = (
                f'"{line.key}" has the options of {"an" if kind[0] == "e" else "a"} {kind[:-1]}, under "{section}"'
            )
            edits, help_ = (Edit(line.start, line.start, f"{kind}:\n"),), f'write "{kind}:" on a line above it'
            yield Slip(line.key_start, len(line.key), message, help_, edits, line.path, is_certain=kind != "events")


def _keys_in(lines: list[Line], item: Line) -> set[str]:
    """Return the keys of an item, in braces or below its name."""
    inner = re.findall(r"[{,]\s*([\w-]+):(?=\s)", unquoted(item.value)) if item.value[:1] == "{" else []
    return {*inner, *(other.key for other in _below(lines, item.path))}


def repeated_options(source: Source) -> Iterator[Slip]:
    """Find options that begin again within an item: the name of the next item is missing above them."""
    for index, line in enumerate(source.lines):
        if len(line.path) != 3 or line.path[0] not in _NAMED or line.key not in ("from", "handler", "factory", "file"):
            continue
        before = [other.key for other in source.lines[:index] if other.path[:-1] == line.path[:-1]]
        after = [other for other in source.lines[index:] if other.path[:-1] == line.path[:-1]]
        made = next((other.value for other in after if other.key in ("handler", "factory")), "")
        is_next = len({*before} & {other.key for other in after}) > 1 and line.key in before
        if is_next and made and source.is_wrong(line):
            names = [other for other in source.lines if other.path[:-1] == line.path[:1] and other.key]
            head = next(other for other in names if other.path == line.path[:-1])
            name = re.sub(r"\W+", "_", made.rpartition(":")[2])
            name += "_2" if name in {other.key for other in names} else ""
            message = f'a second "{line.key}" begins another {str(line.path[0])[:-1]}, whose name is missing'
            help_ = f'write a name on a line above it, as in "{name}:"'
            edits = (Edit(line.start, line.start, f"{' ' * head.indent}{name}:\n"),)
            yield Slip(line.key_start, len(line.key), message, help_, edits, line.path, is_certain=False)
            return


def uneven_first_keys(source: Source) -> Iterator[Slip]:
    """Find the first key of a map, or a name of a section, that does not line up with the others by a space."""
    for index, (above, line) in enumerate(pairwise(source.lines if source.wrong is None else ()), 1):
        if not line.key or line.dash or _has_tab(source, line):
            continue
        below = _deeper(source.lines[index + 1 :], above.indent)
        column = min((other.indent for other in below if other.key), default=line.indent)
        keys = model_keys(model_at(above.path))
        is_section = len(above.path) == 1 and above.path[0] in SECTIONS and not re.match(r"[\w-]+: ", line.value)
        options = model_keys(model_at((*above.path, "*"))) if is_section else []  # any other key is a name there
        fits = [other for other in below if other.indent == column and other.key and not other.dash]
        others = [other for other in fits if other.key in keys or (is_section and other.key not in options)]
        is_key = line.key in keys or (is_section and line.key not in options)
        is_first = above.key and not above.value and line.indent > above.indent and is_key and line.value
        if is_first and column != line.indent and (len(others) > 1 or column == above.indent + 2) and others:
            message = f'"{line.key}" does not line up with the keys below it'
            yield _moved(source, index, column, message, others[0])
            return


def uneven_names(source: Source) -> Iterator[Slip]:
    """Find the name of an item that does not stand where most names of its section do."""
    lines = source.lines if source.wrong is None else []
    for start, head in enumerate(lines):
        if head.indent or head.key not in SECTIONS:
            continue
        block = [*_deeper(lines[start + 1 :], 0), head]
        names = [(line, below) for line, below in pairwise(block) if line.key and _heads(line, below, head.key)]
        count = Counter(line.indent for line, _ in names)
        column = max(count, key=lambda at: (count[at], -(at % 2), -at), default=0)
        home = next((line for line, _ in names if line.indent == column), head)
        for line, below in names:
            if line.indent != column and (line.value or below.indent > column):
                shift = column - line.indent
                edits = (Edit(line.start, line.start + max(0, -shift), " " * shift),)
                place = f'as "{home.key}" in line {source.positions.span(home.start, home.start).line}'
                message = f'"{line.key}" does not line up with the other names'
                yield Slip(line.key_start, len(line.key), message, f"{_by(shift)}, {place}", edits, line.path)
                return


def _heads(line: Line, below: Line, section: str) -> bool:
    """Whether a line may be the name of an item: it has options of the item in braces, or on the lines below."""
    keys = model_keys(model_at((section, "*")))
    if line.dash or not line.value:
        return not line.dash and line.key not in keys and below.key in keys
    inner = _keys_in([], line)
    is_schema = section == "events" and re.fullmatch(r"[\w.]+:\w+", line.value) is not None
    return line.key not in keys and (is_schema or (bool(inner) and inner <= {*keys}))


_HEAD = re.compile(r"^([ \t]*)#([ \t]*)([\w.-]+):[ \t]*\r?$", re.MULTILINE)


def commented_heads(source: Source) -> Iterator[Slip]:
    """Find keys whose map, or its name, is commented out above them, as `# retry:` above `attempts: 5`."""
    lines = source.lines
    for match in _HEAD.finditer(source.text):
        column = len(match[1]) + (len(match[2]) if len(match[2]) > 1 else 0)
        index = next((at for at, line in enumerate(lines) if line.start > match.start()), len(lines))
        below = _deeper(lines[index:], column)
        above = lines[index - 1] if index else None
        is_taken = above and not above.value and above.key and below and below[0].indent > above.indent >= column
        if not below or is_taken:
            continue
        outer = max((at for at in _columns(lines[:index]) if at < column), default=-1)
        around = _columns(lines[:index])[outer].path if outer >= 0 and column else ()
        if not any(map(source.is_wrong, below)) or not _is_head((*around, match[3]), below):
            continue
        start, end = match.start(3) - len(match[2]) - 1, match.start(3) if len(match[2]) < 2 else match.start(2)
        number = source.positions.span(start, start).line
        these = f"these {len(below)} lines" if below[1:] else "this line"
        message = f'line {number} comments out "{match[3]}:", and not what belongs to it'
        help_ = f'remove the "#" in line {number}, or comment out {these}, too'
        at, edits = below[0].start + below[0].indent, (Edit(start, end, ""),)
        yield Slip(at, len(below[0].key or below[0].value) or 1, message, help_, edits, around, is_certain=False)


def _deeper(lines: list[Line], column: int) -> list[Line]:
    return [*takewhile(lambda line: line.indent > column, lines)]


def _is_head(path: KeyPath, below: list[Line]) -> bool:
    """Whether a path may be that of the map or the list that lines are below."""
    direct = [line for line in below if line.indent == below[0].indent]
    if below[0].dash:
        return path[-1] in LISTS and all(line.dash for line in direct)
    if len(path) == 1 and path[0] in SECTIONS:
        keys = model_keys(model_at((str(path[0]), "*")))
        return all(line.key in keys for line in below[1:2] if line.indent > below[0].indent)
    return all(line.key in model_keys(model_at(path)) for line in direct)


def tabs(source: Source) -> Iterator[Slip]:
    """Find lines that are indented with tabs, and the column of each, by the keys that may stand there."""
    for index, line in enumerate(source.lines if source.wrong is None else ()):
        if not line.key or not _has_tab(source, line):
            continue
        columns = _columns([other for other in source.lines[:index] if not _has_tab(source, other)])
        empty = {at + 2: other.path for at, other in columns.items() if not other.value}
        maps = empty | {at: other.path[:-1] for at, other in columns.items()}
        column = max((at for at, path in maps.items() if line.key in model_keys(model_at(path))), default=None)
        if column is None:  # a name
            inner = [(at, path) for at, path in maps.items() if len(path) == 1 and path[0] in SECTIONS]
            below = source.lines[index + 1].key if index + 1 < len(source.lines) else ""
            is_name = bool(line.value) or ("events",) in maps.values()
            fits = (at for at, path in inner if is_name or below in model_keys(model_at((*path, "*"))))
            column = max(fits, default=None)
        if column is not None:
            start, help_ = line.start, f"indent the line by {column} spaces, without tabs"
            yield replaced(line, start, start + line.indent, " " * column, "a tab cannot indent", help_)


def _has_tab(source: Source, line: Line) -> bool:
    return "\t" in source.text[line.start : line.start + line.indent]
