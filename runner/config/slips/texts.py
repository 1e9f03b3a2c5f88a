"""Finds texts that YAML reads as something else, and several names in one text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import takewhile
from typing import Final

from runner.config.messages import closest
from runner.config.models import model_at
from runner.config.outline import Line
from runner.config.positions import Edit
from runner.config.slips.slip import LISTS, PATHS, SECTIONS, Slip, Source, replaced, rewritten, unquoted
from runner.config.spec_model import model_keys

_WORD_LIST = re.compile(r"[\w.*#:/-]+(\s*[,;]\s*[\w.*#:/-]+)+[,;]?")
_WORD_BREAK = re.compile(r"(?:^[-+*•·–]+\s*|^(?:queue|event)s?:(?://)?|\band\b|[\s,;\"'()\[\]+•·|&])+")
_CONTROL = re.compile(r"\{%|\{\{-?\s*(?:/\*|(?:if|else|end|range|for|with|include|define|block|template|toYaml)\b)")
_TEMPLATE = re.compile(r"^(?![\"'|>\[])[^\n]*\{\{[^{}\n]*\}\}[^\n:]*(?::(?!\s|$)[^\n:]*)*")
_TEMPLATE_IN_FLOW = re.compile(r"(?<![\"'\w.])[\w.-]*\{\{[^{}\n]*\}\}[\w.:/-]*")
_ESCAPED_PATH = re.compile(
    r'\b(?:file|schema|python_path|include|ca|cert|key):\s+\[?"((?:[A-Za-z]:|\.{0,2})?[\w.-]*(?:\\{1,2}[\w.-]+)+)"'
)
_SPECIAL_IN_MAP = re.compile(r":[ ]+((?:[@%`]|\*(?![\w-]))[^,{}\[\]\"'\n]*[^,{}\[\]\"'\s])(?=\s*[,}])")
_LIST = re.compile(rf"\b(?:{'|'.join(LISTS)}):[ ]+\[([^\[\]]*)\]")
_TEXTS: Final = ("description", "owner", "name")
_IS_ALIAS: Final = 'a value that starts with "*" is an alias of YAML'


def lists_of_words(source: Source) -> Iterator[Slip]:
    """Find several names in one text, and one name with signs around it, such as `queue://orders`."""
    names = _declared(source)
    wrong_items = {line.path for line in source.lines if not line.key and source.is_wrong(line)}
    for line in source.lines:
        key = line.key or (str(line.path[-1]) if line.path else "")
        is_wrong = source.wrong is not None and (source.is_wrong(line) if line.key else line.path in wrong_items)
        is_quoted = line.value[:1] in ("'", '"') and line.value[-1:] == line.value[:1]
        inner = line.value[1:-1] if is_quoted else line.value
        is_text = key in LISTS and line.value[:1] not in ("", "[", "$") and not line.dash
        for match in _LIST.finditer(f"{line.key}: {line.value}") if is_wrong else ():
            words = [word for word in _WORD_BREAK.split(match[1]) if word]
            if len(words) > match[1].count(",") + 1 and {*words} <= names:
                start, text = line.value_start - len(line.key) - 2 + match.start(1), ", ".join(words)
                message = "the items of a list are separated by commas"
                yield replaced(line, start, start + len(match[1]), text, message, f'write "[{text}]"')
        if not is_wrong or not is_text or (line.key and inner in names):
            continue
        words = [word for word in _WORD_BREAK.split(line.value) if word]
        if not line.key and len(words) == 1 and words[0] in names:
            yield rewritten(line, f"- {words[0]}", 'each item of a list starts with "- "', f'write "- {words[0]}"')
        elif line.key and len(words) > 1 and ({*words} <= names or _WORD_LIST.fullmatch(inner)) and "://" not in inner:
            text = f"[{', '.join(words)}]"
            yield rewritten(line, text, "several names are written as one text", f"write a list: {text}")
        elif line.key and len(words) == 1 and words[0] in names:
            yield rewritten(line, words[0], f'"{words[0]}" is meant, without signs around it', f'write "{words[0]}"')


def _declared(source: Source) -> set[str]:
    """Return the names of the queues and events of the file."""
    named = [line for line in source.lines if line.path[:1] in (("queues",), ("events",))]
    inline = "".join(line.value for line in named if len(line.path) == 1)
    return {line.key for line in named if len(line.path) == 2} | {*re.findall(r"[{,]\s*([\w.-]+)\s*:", inline)}


def templates(source: Source) -> Iterator[Slip]:
    """Find `{{ name }}` without quotes, which is put into them, and lines such as `{{- if x }}` and `{% for … %}`."""
    for line in source.lines:
        if not line.key and not line.dash and _CONTROL.match(line.value):
            help_ = "fill the template in first, as with `helm template`, or remove this line"
            message = "this line is of a template, which is not filled in"
            yield rewritten(line, f"# {line.value}", message, help_)._replace(is_certain=False)
            continue
        is_flow = re.match(r"\[|\{(?!\{)", line.value) is not None
        for match in (_TEMPLATE_IN_FLOW if is_flow else _TEMPLATE).finditer(line.value):
            sign = '"' if '"' not in match[0] else "'"
            start, end = line.value_start + match.start(), line.value_start + match.end()
            if sign not in match[0]:
                yield Slip(start, 1, "", "", (Edit(start, start, sign), Edit(end, end, sign)), is_certain=False)


def special_starts(source: Source) -> Iterator[Slip]:
    """Find values that YAML reads as an anchor, an alias or a comment, although they are meant as text."""
    anchors = {*re.findall(r"&([^\s,\[\]{}]+)", source.text)} - {*(names := _declared(source))}
    aliases = {*re.findall(r"\*([^\s,\[\]{}]+)", source.text)}
    for line in source.lines:
        value, quoted = line.value, f'"{line.value}"'
        is_wrong = source.wrong is None or source.is_wrong(line)
        if not (line.key or line.dash) or not is_wrong or (value[:1] == "&" and value[1:] in aliases):
            continue
        name, help_ = value[1:], f'remove the "{value[:1]}": write "{value[1:]}"'
        if re.fullmatch(r"&[\w.-]+", value) and not source.is_free(line):
            yield rewritten(line, name, f'"{value}" is an anchor, and no value', help_)
        elif value[:1] in ("*", "@", "%") and name in names and not source.is_free(line):
            yield rewritten(line, name, f'"{name}" is meant, without signs around it', help_)
        elif re.fullmatch(r"&[\w.-]+", value):
            yield rewritten(line, quoted, f'"{value}" is an anchor, and no value', f"put it in quotes: {quoted}")
        elif re.fullmatch(r"\*|\*[.\w]*[.#*][.\w#*]*|\*(/\d+)?( [\w*/,-]+){4}", value) and value[1:] not in anchors:
            yield rewritten(line, quoted, _IS_ALIAS, f"put it in quotes: {quoted}")
        elif value[:1] in ("@", "%") or (value[:1] == "`" and value[-1] != "`"):
            if '"' not in value and "\\" not in value:
                message = "" if line.key == "cron" else f'a value cannot start with "{value[0]}"'
                yield rewritten(line, quoted, message, f"put it in quotes: {quoted[:60]}")
        elif value[:1] == "[":
            yield from _in_list(source, line, anchors)
        for match in _SPECIAL_IN_MAP.finditer(value) if value[:1] == "{" else ():
            start, end = (line.value_start + at for at in match.span(1))
            message = f'a value cannot start with "{match[1][0]}"'
            yield replaced(line, start, end, f'"{match[1]}"', message, f'put it in quotes: "{match[1]}"')


def unknown_aliases(source: Source) -> Iterator[Slip]:
    """Find an alias whose anchor has another spelling."""
    anchors = [*re.findall(r"(?<![^\s\[{,])&([\w-]+)", source.text)]
    for line in source.lines if source.wrong is None else ():
        for match in re.finditer(r"(?:^|[:,\[]\s+)\*([\w-]+)(?=\s*(?:[,\]}]|$))", unquoted(line.value)):
            guess = closest(match[1], anchors) if match[1] not in anchors else ""
            if guess:
                start, end = (line.value_start + at for at in match.span(1))
                message, help_ = f'there is no anchor "&{match[1]}" above', f'did you mean "*{guess}"?'
                yield replaced(line, start - 1, end, f"*{guess}", message, help_)._replace(code="unknown-alias")


def _in_list(source: Source, line: Line, anchors: Collection[str]) -> Iterator[Slip]:
    """Find `#` and `*` without quotes in a list in brackets."""
    match = re.compile(r"\[([^\]\"'{}\n]*)\]").match(source.text, line.value_start)
    words = [word.strip() for word in match[1].split(",")] if match else []
    bad = [word for word in words if word.startswith(("#", "*")) and word[1:] not in anchors]
    if match is None or not bad:
        return
    quoted = ", ".join(f'"{word}"' if word in bad else word for word in words)
    message = '"#" starts a comment here, so this "[" is not closed' if bad[0][0] == "#" else _IS_ALIAS
    slip = replaced(line, *match.span(), f"[{quoted}]", message, f"put it in quotes: [{quoted}]")
    yield slip._replace(start=line.value_start + match[0].index(bad[0]), length=len(bad[0]))


def escapes(source: Source) -> Iterator[Slip]:
    """Find a path with backslashes in double quotes, in which YAML reads `\\n` as a line break."""
    for line in source.lines:
        start, end = line.key_start, line.value_end
        for match in _ESCAPED_PATH.finditer(source.text, start, end) if source.is_wrong(line) else ():
            path = match[1].replace("\\\\", "\\").replace("\\", "/")
            escape = re.search(r"\\.", match[1])
            message = f'"{escape[0] if escape else ""}" in double quotes is an escape of YAML'
            at, stop = match.span(1)
            yield replaced(line, at - 1, stop + 1, f'"{path}"', message, f'write "{path}"')


def texts_not_indented(source: Source) -> Iterator[Slip]:
    """Find the end of a text, after `|` or on several lines, that is not indented like its beginning."""
    for index, line in enumerate(source.lines if source.wrong is None else ()):
        above = source.lines[index - 1] if index else None
        known = model_keys(model_at(line.path[: -1 if line.key else None]))
        is_prose = re.match(r"[^\W\d_]\w*([ ,]+[^\s:]+)+", f"{line.key} {line.value}".strip()) and line.key not in known
        is_prose = is_prose and not re.fullmatch(r"[\w-]+", line.key) and line.value.split(" ")[0] not in known
        if above is None or above.key not in ("description", "owner") or not above.value or line.dash or not is_prose:
            continue
        if line.indent > above.indent:
            continue
        follows = [*takewhile(lambda other: not other.key and not other.dash, source.lines[index:])] or [line]
        first = re.match(r"[|>][-+0-9]*[ \t]*\r?\n([ ]+)", source.text[above.value_start :])
        blanks = " " * ((len(first[1]) if first else above.indent + 2) - line.indent)
        edits = tuple(Edit(other.start, other.start, blanks) for other in follows)
        message = f'this line is not indented, so it does not belong to the text of "{above.key}"'
        help_ = f"indent it by {len(blanks)} spaces"
        yield Slip(line.start, len(line.key) or len(line.value), message, help_, edits, above.path)


def second_colon(source: Source) -> Iterator[Slip]:
    """Find `description: a: b`, `handler: a.b: c`, and a map that starts behind its key, as `ship: from: orders`."""
    for line in source.lines if source.wrong is None else ():
        is_plain = line.value[:1] not in ("", "[", "{", '"', "'", "|", ">", "&", "*", "!")
        if not line.key or not is_plain or not re.search(r":(\s|$)", line.value):
            continue
        inner = re.match(r"([\w-]+):(\s|$)", line.value)
        keys = "|".join(map(re.escape, model_keys(model_at(line.path[:-1]))))
        glued = re.search(rf"[ \t]+(?=({keys}):(?:\s|$))", line.value) if keys and line.key not in _TEXTS else None
        joined = re.fullmatch(r"([\w.]+)\s*:\s+([\w.]+)", line.value)
        if joined and line.key in PATHS:
            path = f"{joined[1]}:{joined[2]}"
            yield rewritten(line, path, "an import path has no space in it", f'write "{path}"')
        elif inner and (inner[1] in model_keys(model_at(line.path)) or (line.key in SECTIONS and len(line.path) == 1)):
            below = next((other for other in source.lines if other.path[:-1] == line.path and other.key), None)
            start = line.key_start + len(line.key) + 1
            closing = {":": " }", "}": ""}.get(line.value[-1], "}") if "{" not in line.value else "}"
            written = f" {{{line.value}{closing}"
            help_ = f'write "{line.key}: {{{line.value[:60]}{closing}"'
            if below is not None:
                written = f"\n{' ' * below.indent}{line.value}"
                help_ = f'write only "{line.key}:" here, and "{line.value[:60]}" on a line below it, as "{below.key}"'
            edits = (Edit(start, line.value_end, written),)
            message = f'the value of "{line.key}" is a map, which starts on the line below it or with "{{"'
            yield Slip(line.value_start, len(line.value), message, help_, edits, line.path)
        elif glued:
            start, end = (line.value_start + at for at in glued.span())
            help_ = f'start a new line before "{glued[1]}:"'
            yield replaced(line, start, end, f"\n{' ' * line.level}", "two keys in one line", help_)
        elif line.key in _TEXTS and not {'"', "\\"} & {*line.value}:
            quoted = f'"{line.value}"'
            yield rewritten(line, quoted, 'a second ":" in one line', f"put the value in quotes: {quoted[:60]}")
