"""Finds missing and superfluous signs: colons, dashes, commas, comments, brackets and quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise, takewhile
from typing import Final

from runner.config.document import KeyPath
from runner.config.models import model_at
from runner.config.outline import Line
from runner.config.positions import Edit, apply_edits
from runner.config.slips.slip import ITEMS, LISTS, PATHS, SECTIONS, Slip, Source, replaced, rewritten, unquoted
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, model_keys

_KEYS_IN_FLOW = re.compile(r"(?<=[{,\s])([\w-]+):(?=[^\s/,}])")
_COMMENT_BEHIND = re.compile(r"(?<=\s)(//+|/\*+|--|;+)(\s[^\n]*)")
_COMMENT = re.compile(r"(?:(?<=\s)|(?<=[,{}\[\]]))(//+|/\*+)([^\n]*)")
_COMMENT_LINE = re.compile(r"(?:^|(?<=\n))[ \t]*(//+|/\*+|--+(?= )|;+(?= )|<!--)([^\n]*)")
_BLOCK = r"[\s\S]{0,2000}?"
"""The lines of a comment. Without a limit, a search from each line would go on to the end of the file."""
_BLOCK_COMMENT = re.compile(rf"^[ \t]*(?:/\*(?!.*\*/){_BLOCK}\*/|<!--(?!.*-->){_BLOCK}-->)[ \t]*$", re.MULTILINE)
_NOT_YAML = {
    "Markdown": re.compile(r"```[ \w]*"),
    "of a terminal": re.compile(
        r"(?:\$|>>>|PS [^>]*>|[\w.-]+@[\w.-]+[^\n]*[$#])(?: [^\n]*)?|cat [^\n]*<<[^\n]*|EOF|EOT"
    ),
    "a command of an editor": re.compile(r":(?:w|q|wq|x|wa|qa|wqa)!?|ZZ|ZQ"),
}
"""Lines that belong to something else, by what they belong to."""
_CLOSING: Final = {"[": "]", "{": "}"}
_NO_COLON = re.compile(r"([\w.-]+)(\s*(?:=>|->|:=|=|::(?=\s|$)|;(?=\s|$))\s*|\s+:(?=\S)|\s+(?=[^\s=-]))(.*)")
_NO_COMMA: Final = r"[^\s,;{(](\s+)(?=(?:{}):\s)"
_WORD = re.compile(r"[A-Za-z_][\w.-]*")
_DIFF_HEADER = re.compile(r"@@ .*@@|diff --git |index [0-9a-f]+\.\.|--- \S|\+\+\+ \S|\\ No newline")
_SPLIT_NUMBER = re.compile(
    r"(?<=[:\s])(\d{1,3})((?:,[ ]?\d{3})+)(?=[a-zA-Z/%]*\s*[,}])|(?<=[:\s])(\d+),(\d+)(?=[a-zA-Z/%]*\s*[,}])"
)


def prefixes(source: Source) -> Iterator[Slip]:
    """Find what a copy puts before every line: the numbers of the lines, or the signs of a diff or a mail."""
    lines = list(re.finditer(r"^.*\S.*$", source.text, re.MULTILINE))
    for pattern in (r"[ \t]*\d+[ \t]*[|│┃:.)-] ?", r"[ \t]*\d+\t", r" *\d+ ", r"\+|> ?"):
        found = [match for line in lines if (match := re.match(pattern, line[0]))]
        if len(found) == len(lines) > 2:
            starts = [line.start() for line in lines]
            edits = tuple(Edit(at, at + match.end(), "") for at, match in zip(starts, found, strict=True))
            help_ = f'remove "{found[0][0].strip()}" here, and the like from all other lines'
            yield Slip(starts[0], found[0].end(), "every line starts with a sign that is not YAML", help_, edits)
            return


def diffs(source: Source) -> Iterator[Slip]:
    """Find lines of a diff: those that it adds keep their place, those that it removes are taken out."""
    lines = [line for line in re.finditer(r"^.*\S.*$", source.text, re.MULTILINE) if not line[0].startswith("#")]
    added = [line for line in lines if re.match(r"\+(?!\+\+ )", line[0])]
    if not added or not any(source.is_wrong_at(line.start()) for line in added):
        return
    headers = [line for line in lines if _DIFF_HEADER.match(line[0])]
    removed = [line for line in lines if re.match(r"-(?!-)", line[0]) and line not in headers]
    rest = [line for line in lines if line not in (*added, *headers, *removed)]
    is_whole = all(line[0][0] == " " for line in rest) and bool(rest)
    edits = [Edit(line.start(), line.end() + 1, "") for line in (*headers, *removed)]
    edits += [Edit(line.start(), line.start() + 1, "") for line in (*added, *(rest if is_whole else ()))]
    edits = [edit._replace(end=min(edit.end, len(source.text))) for edit in edits]
    what = ['the "+" at the start of ' + ("this line" if len(added) == 1 else f"these {len(added)} lines")]
    what += ['the lines that start with "-"'] if removed else []
    what += ["the other lines of the diff, such as @@"] if headers else []
    what += ["one blank at the start of all other lines"] if is_whole else []
    help_ = f'remove {", and ".join(what)}; the blanks behind "+" stay'
    yield Slip(added[0].start(), 1, 'lines that start with "+" are those of a diff', help_, tuple(sorted(edits)))


def missing_space(source: Source) -> Iterator[Slip]:
    message = 'a space is missing after the ":"'
    for line in source.lines:
        if line.value[:1] in ("{", "["):
            for match in _KEYS_IN_FLOW.finditer(unquoted(line.value)):
                if match[1] in _language_keys():
                    at = line.value_start + match.end()
                    rest = re.match(r"[^,}\]\s]*", line.value[match.end() :])
                    help_ = f'write "{match[1]}: {rest[0] if rest else ""}"'
                    yield Slip(at - 1, 1, message, help_, (Edit(at, at, " "),), line.path)
        elif not line.key and (key := re.match(r"([\w.-]+):(?=[^\s:/])", line.value)):
            at = line.value_start + key.end()
            if re.fullmatch(r"[^\w\s\"'{\[*&|>-]+|[\"']", line.value[key.end() :]):
                yield replaced(
                    line,
                    at,
                    line.value_end,
                    "",
                    f'this "{line.value[key.end() :]}" does not belong behind the ":"',
                    "remove it",
                )
            elif key[1] in model_keys(model_at(line.path)) or (_is_section(line) and line.value[key.end()] == "{"):
                help_ = f'write "{key[1]}: {line.value[key.end() :][:60]}"'
                yield Slip(at - 1, 1, message, help_, (Edit(at, at, " "),), line.path)


def split_numbers(source: Source) -> Iterator[Slip]:
    """Find `{max_length: 10,000}`, which YAML reads as two parts of a map."""
    for line in source.lines:
        if line.value[:1] != "{" or not source.is_wrong(line):
            continue
        for match in _SPLIT_NUMBER.finditer(unquoted(line.value)):
            number = re.sub(r"[, ]", "", f"{match[1]}{match[2]}") if match[1] else f"{match[3]}.{match[4]}"
            start, end = (line.value_start + at for at in match.span())
            message = f'YAML reads "{match[0]}" in braces as two parts of the map'
            yield replaced(line, start, end, number, message, f'write "{number}"')


def signs_in_braces(source: Source) -> Iterator[Slip]:
    """Find `{a=1}`, `{a: 1; b: 2}`, `{a: 1 b: 2}`, `(a: 1)` and `a: 1, b: 2` where a map is meant."""
    for line in source.lines:
        text, start = unquoted(line.value), line.value_start
        keys = "|".join(map(re.escape, model_keys(model_at(line.path)))) if line.key else ""
        if not keys or not source.is_wrong(line) or "\n" in text:
            continue
        edits = []
        if text[:1] == "(" and text[-1] == ")" and re.match(rf"\(\s*(?:{keys})\s*[:=]", text):
            edits = [Edit(start, start + 1, "{"), Edit(line.value_end - 1, line.value_end, "}")]
        elif text[:1] not in ("{", "[", "(") and re.match(rf"(?:{keys}):\s+[^,]+,\s*(?:{keys}):\s", text):
            is_closed = text[-1] == "}" and "{" not in text
            edits = [Edit(start, start, "{"), Edit(line.value_end, line.value_end, "" if is_closed else "}")]
        elif text[:1] != "{":
            continue
        for pattern, sign in (
            (r"\b(?:{})(\s*=\s*)", ": "),
            (r"[{,]\s*(?:{})(\s*;\s*|\s+)(?=(?:[^\s:,}=;]|:(?=\S))+\s*[,}])", ": "),
            (r"(;\s*)(?=(?:{})\s*[:=])", ", "),
            (_NO_COMMA, ", "),
        ):
            found = re.finditer(pattern.replace("{}", keys), text)
            edits += [Edit(start + at.start(1), start + at.end(1), sign) for at in found]
        if edits:
            edits.sort()
            mended = apply_edits(source.text[: line.value_end], edits)[start:]
            message, help_ = "a map in braces is written {key: value, key: value}", f'write "{mended[:60]}"'
            yield Slip(start, len(line.value), message, help_, tuple(edits), line.path)


def block_in_braces(source: Source) -> Iterator[Slip]:
    """Find a map in braces with a key on each line, and no commas at their ends."""
    for index, line in enumerate(source.lines if source.wrong is None else ()):
        below = source.lines[index + 1 :] if line.value == "{" else []
        inner = [*takewhile(lambda other: bool(other.key), below)]
        if 1 < len(inner) < len(below) and below[len(inner)].value[:1] == "}":
            edits = tuple(Edit(at.value_end, at.value_end, ",") for at in inner[:-1] if at.value[-1:] != ",")
            message, help_ = 'a "," is missing after this value', 'end this line with ",", and those below it up to "}"'
            yield Slip(inner[0].value_start, len(inner[0].value), message, help_, edits, line.path)


def missing_colon(source: Source) -> Iterator[Slip]:
    """Find `key value`, `key = value` and `key; value`."""
    for line in source.lines:
        is_whole = not line.key or "{" in line.key  # `with {count: 8}` has a colon further behind
        start, path = (line.key_start, line.path[:-1]) if line.key else (line.value_start, line.path)
        match = _NO_COLON.fullmatch(source.text[start : line.value_end]) if is_whole else None
        if match is None:
            continue
        is_name = len(path) == 1 and path[0] in SECTIONS and match[3][:1] in ("", "{")
        if match[1] not in model_keys(model_at(path)) and not (is_name and (match[2].strip() or match[3])):
            continue
        message = 'a ":" is missing after this key'
        if (sign := match[2].strip()) == ":":
            message = 'the ":" belongs behind the key'
        elif sign:
            message = f'YAML writes ":" between a key and its value, not "{sign}"'
        written = f"{match[1]}: {match[3]}".rstrip()
        yield replaced(line, start, line.value_end, written, message, f'write "{written[:60]}"')._replace(path=path)


def bare_keys(source: Source) -> Iterator[Slip]:
    """Find a section or the name of an item without a colon: a word alone, with deeper lines below it."""
    for line, below in pairwise(source.lines):
        is_alone = not line.key and not line.dash and _WORD.fullmatch(line.value) and below.indent > line.indent
        known = model_keys(model_at(line.path)) if line.path else model_keys(PipelineSpec)
        is_name = len(line.path) == 1 and line.path[0] in SECTIONS and below.key
        if is_alone and below.key and (line.value in known or is_name):
            message, help_ = 'a ":" is missing after this key', f'write "{line.value}:"'
            yield rewritten(line, f"{line.value}:", message, help_)


def missing_dash_space(source: Source) -> Iterator[Slip]:
    for above, line in pairwise(source.lines):
        bullet = re.match(r"-(?=[^\s\d-])|[*+•·–]\s+(?=\S)", line.value) if not line.key and not line.dash else None
        if bullet is None:
            continue
        text, sign = line.value[bullet.end() :], bullet[0].strip()
        if text.partition(":")[0] in model_keys(model_at(line.path)) and sign != "-":
            yield rewritten(line, text, f'a key does not start with "{sign}"', f'write "{text[:60]}"')
        elif (line.path and line.path[-1] in {*LISTS, "bind"}) or (above.key in LISTS and not above.value):
            message = 'a space is missing after the "-"' if sign == "-" else f'an item starts with "- ", not "{sign}"'
            yield rewritten(line, f"- {text}", message, f'write "- {text[:60]}"')


def list_in_place_of_map(source: Source) -> Iterator[Slip]:
    for index, line in enumerate(source.lines):
        keys = model_keys(model_at(line.path)) if line.key and not line.value else []
        at, below = line.path, source.lines[index + 1 :] if keys else []
        direct = [other for other in below if other.path[: len(at)] == at and _words(other.path[:-1]) == at]
        items = [item for item in direct if item.dash or item.key in keys]
        plain = {item.level for item in items if not item.dash}
        dashed = [item for item in items if item.dash]
        is_map = dashed and all(item.key in keys and len(item.dash) in (0, 2) for item in items) and len(plain) < 2
        if is_map and len({item.key for item in items}) == len(items):
            column = min(plain, default=items[0].indent)
            blank = " " * (column - items[0].indent if items[0].indent > line.indent else 2)
            edits = tuple(Edit(item.start + item.indent, item.key_start, blank) for item in dashed)
            help_ = f'remove {"the" if len(dashed) == 1 else f"the {len(dashed)}"} "- ": a map has one key on each line'
            message = f'"{line.key}" is a map, not a list'
            yield Slip(line.key_start, len(line.key), message, help_, edits, line.path)


def _words(path: KeyPath) -> KeyPath:
    """Return a path without the indexes of lists."""
    return tuple(part for part in path if isinstance(part, str))


def named_items(source: Source) -> Iterator[Slip]:
    """Find sections that are lists of maps: with a `name`, or each with the name as its only key."""
    for line in source.lines:
        is_item = len(line.path) == 3 and isinstance(line.path[1], int) and line.path[0] in SECTIONS
        if not is_item or len(line.dash) != 2:
            continue
        is_whole = line.value[:1] in ("", "{") and line.key not in model_keys(model_at((str(line.path[0]), "*")))
        name = line.value if line.key == "name" else line.key if is_whole else ""
        if not name:
            continue
        start, end = line.start + line.indent, line.key_start if is_whole else line.value_end
        blanks = "" if line.indent else "  "
        message, help_ = f'"{line.path[0]}" is a map of names, not a list', f'write "{name}:", without the "- "'
        help_ += ", indented by 2 spaces" if blanks else ""
        yield replaced(line, start, end, blanks if is_whole else f"{name}:", message, help_)._replace(
            path=line.path[:1]
        )


def marks(source: Source) -> Iterator[Slip]:
    """Find the marks of a merge conflict, of which the first side is read, and `---` inside of a pipeline."""
    for start, first, middle, end in _merge_conflicts(source.text):
        edits = (Edit(start, first, ""), Edit(middle, end, ""))
        message, help_ = "this is a mark of a merge conflict", "keep one side, and remove the marks"
        yield Slip(start, first - start - 1, message, help_, edits, is_certain=False)
    for match in re.finditer(
        r"(?<=\n)---[ \t]*\r?\n(?=(?!(?:.*\n)*(?:version|apiVersion|name|---))[\w-]+:)", source.text
    ):
        if re.search(r"^[\w-]+:", source.text[: match.start()], re.MULTILINE):
            help_ = 'remove this "---": what follows belongs to the same pipeline'
            mended, code = (Edit(*match.span(), ""),), "multiple-documents"
            yield Slip(match.start(), 3, "a file holds one pipeline", help_, mended, code=code)


def _merge_conflicts(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield where each conflict starts, where its first side starts and ends, and where the conflict ends."""
    start = first = middle = at = 0
    for line in text.splitlines(keepends=True):
        after = at + len(line)
        if line.startswith("<" * 7):
            start, first, middle = at, after, 0
        elif first and not middle and (line.startswith("|" * 7) or line.rstrip() == "=" * 7):
            middle = at
        elif middle and line.startswith(">" * 7):
            yield start, first, middle, after
            first = middle = 0
        at = after


def block_comments(source: Source) -> Iterator[Slip]:
    """Find comments of several lines, as `/* … */`."""
    for match in _BLOCK_COMMENT.finditer(source.text):
        starts = [match.start() + at.start() for at in re.finditer("^", match[0], re.MULTILINE)]
        if source.is_wrong_at(starts[0]):
            help_ = f'put "# " before {"each of these " + str(len(starts)) + " lines" if starts[1:] else "this line"}'
            edits = tuple(Edit(at, at, "# ") for at in starts)
            yield Slip(starts[0], len(match[0].partition("\n")[0]), 'a comment starts with "#"', help_, edits)


def comments(source: Source) -> Iterator[Slip]:
    for line in source.lines:
        kind = next((kind for kind, form in _NOT_YAML.items() if not line.key and form.fullmatch(line.value)), "")
        if kind == "Markdown" or (kind and source.is_wrong(line)):
            edits = (Edit(line.start, min(line.value_end + 1, len(source.text)), ""),)
            yield Slip(line.start, len(line.value), f"this line is {kind}, not YAML", "remove the line", edits)
        if source.is_free(line) or not source.is_wrong(line):
            continue
        is_line = not line.key or _COMMENT_LINE.match(line.key) is not None
        first = line.key_start if is_line else line.value_start
        is_flow = line.value[:1] in ("{", "[")
        pattern = _COMMENT if is_flow else _COMMENT_LINE if is_line else _COMMENT_BEHIND
        for match in pattern.finditer(unquoted(source.text[first : line.value_end])):
            if match[1][0] == ";" and line.key in LISTS:
                continue
            start, text = first + match.start(1), re.sub(r"\s*(?:\*/|-->)$", "", match[2].strip())
            end, help_ = first + match.end(), f'write "# {text[:60]}"'
            path = () if is_line else line.path
            yield replaced(line, start, end, f"# {text}", 'a comment starts with "#"', help_)._replace(path=path)
        is_name = line.key and source.wrong is not None
        behind = " " if line.key in PATHS else "[A-Za-z ]"
        glued = re.match(rf"[\w.:-]*\w(#)(?={behind})", line.value) if is_name else None
        if glued:
            at, message = line.value_start + glued.start(1), '"#" starts a comment only behind a blank'
            yield replaced(line, at, at, " ", message, 'put a space before "#" to start a comment')


def trailing_signs(source: Source) -> Iterator[Slip]:
    for line in source.lines:
        text, end = unquoted(line.value), line.value_end
        is_twice = line.key and text[-1:] in ("]", "}") and _closing(text[:-2]) == text[-2:-1] != ""
        is_closed = re.fullmatch(r"[,;.:\\\\]", text[-1:]) and text[-2:-1] in ("]", "}") and _closing(text[:-1]) == ""
        is_ended = is_twice or is_closed or line.value[:1] not in ("[", "{", "|", ">", "!")
        sign = line.value[-1:] if (len(line.value) > 1 and is_ended) or line.value in (",", ";") else ""
        is_value = line.key and line.key not in SECTIONS and not model_keys(model_at(line.path))
        is_listed = line.key in LISTS and "," in line.value
        is_half_quoted = sign in ('"', "'") and line.value.count(sign) in (1, 3) and not is_listed
        if not sign or (source.is_free(line) and not (is_closed or is_twice)) or not source.is_wrong(line):
            continue
        opening = {"]": "[", "}": "{"}.get(sign, "")
        if opening and opening not in text and is_value and (source.wrong is not None or text[0] == '"'):
            yield replaced(line, end - 1, end, "", f'this "{sign}" closes nothing', "remove it")
        elif is_half_quoted:
            yield replaced(line, end - 1, end, "", "this quote is not opened", f"remove the last {sign}")
        elif is_twice and source.wrong is None:
            yield replaced(line, end - 1, end, "", f'this "{sign}" closes nothing', "remove it")
        elif (
            sign in ",;"
            or is_closed
            or (
                sign == ":"
                and source.wrong is None
                and is_value
                and line.key not in PATHS
                and re.fullmatch(r"[\w.-]+:", line.value)
            )
        ):
            message = f'"{sign}" does not end a value in YAML'
            yield replaced(line, end - 1, end, "", message, f'remove the "{sign}"')


def unclosed(source: Source) -> Iterator[Slip]:
    """Find brackets and quotes that are open at the end of a line, and a key in the line below."""
    for line in source.lines if source.wrong is None else ():
        if line.value_end == len(source.text):
            break  # the file is cut off
        first = line.value.split("\n")[0].rstrip()
        if first[:1] in ('"', "'") and first.count(first[0]) == 1 and (line.key or line.dash):
            end, other = line.value_start + len(first), first[-1] if first[-1] in "\"'" and len(first) > 1 else ""
            message, help_ = "this quote is not closed", f"add {first[0]} at the end of the line"
            help_ += f" in place of {other}" if other else ""
            edits = (Edit(end - len(other), end, first[0]),)
            yield Slip(line.value_start, len(first), message, help_, edits, line.path)
        elif first == line.value and line.key and (closing := _closing(unquoted(first))):
            below, bare = (
                source.text[line.value_end :].lstrip(" \r").startswith("\n"),
                first.partition(" #")[0].rstrip(),
            )
            if below and bare[-1] in "()" and bare.count("(") != bare.count(")"):
                help_, at = f'write "{closing}" in place of it', line.value_start + len(bare) - 1
                message = f'a "{bare[-1]}" does not close a "{first[0]}"'
                yield replaced(line, at, at + 1, closing, message, help_)
            elif below and bare[-1] not in "[{,":
                where = "at the end of the line" if bare == first else f'behind "{bare[-20:]}"'
                message, help_ = f'this "{first[0]}" is not closed', f'add "{closing}" {where}'
                at = line.value_start + len(bare)
                edits = (Edit(at, at, " " * (bare[-1] == ":") + closing),)
                yield Slip(line.value_start, len(first), message, help_, edits, line.path)


def quoted_pairs(source: Source) -> Iterator[Slip]:
    """Find `"from: orders"`, a key and its value in one pair of quotes, and `"from: orders` and `"orders":"`."""
    for line in source.lines if source.wrong is None else ():
        match = re.fullmatch(r"([\"'])([\w.-]+):(\s+[^\"']*|)(\1?)", line.value)
        is_name = len(line.path) == 1 and line.path[0] in SECTIONS
        if line.key or line.dash or match is None or not (is_name or match[2] in model_keys(model_at(line.path))):
            continue
        written = f"{match[2]}:{match[3].rstrip()}"
        message = "this line is one text in quotes: a key has its own, or none"
        yield rewritten(line, written, message, f'write "{written[:60]}", without quotes around both')


def dashes_before_sections(source: Source) -> Iterator[Slip]:
    """Find a key of the top level with a dash before it, and a name with a hyphen before it that others do not have."""
    is_pipeline = any(line.key in ("version", *ITEMS) and not line.level for line in source.lines)
    names = (line for line in source.lines if len(line.path) == 2 and line.path[0] in SECTIONS)
    named = {(line.path[0], line.indent) for line in names if line.key and not line.dash}
    for line in source.lines:
        start, bare = line.start + line.indent, line.key.removeprefix("-")
        if is_pipeline and not line.indent and line.dash == "- " and line.key in model_keys(PipelineSpec):
            message, help_ = f'"{line.key}" is a key, not an item of a list', f'write "{line.key}:", without the "- "'
            yield replaced(line, start, line.key_start, "", message, help_)._replace(path=(line.key,))
        elif line.dash == "- " and len(line.path) == 3 and line.path[1] == 0 and (line.path[0], line.indent) in named:
            message, help_ = f'"{line.key}" is a name, not an item of a list', f'write "{line.key}:", without the "- "'
            yield replaced(line, start, line.key_start, "", message, help_)._replace(path=line.path[:1])
        elif bare != line.key and bare in model_keys(model_at(line.path[:-1])):
            help_ = f'write "{bare}:"'
            yield replaced(line, start, start + 1, "", 'a key does not start with "-"', help_)
        elif bare != line.key and len(line.path) == 2 and line.path[0] in SECTIONS and _WORD.fullmatch(bare):
            used = re.findall(rf"(?<![\w.])-?{re.escape(bare)}(?![\w.-])", source.text)
            if bare in used and used.count(line.key) == 1:
                message, help_ = f'everything else names "{bare}", without a hyphen', f'write "{bare}:"'
                yield replaced(line, start, start + 1, "", message, help_)


def stray_dashes(source: Source) -> Iterator[Slip]:
    """Find keys with a dash before them beside keys of the same map without one."""
    last: dict[int, Line] = {}
    for line in source.lines if source.wrong is None else ():
        last = {column: other for column, other in last.items() if column <= line.level}
        beside = {column: last[column] for column in (line.indent, line.level) if column in last}
        if line.key and not line.dash:
            last = {column: other for column, other in last.items() if column < line.indent} | {line.indent: line}
        for column, above in beside.items() if line.key and line.dash.strip() == "-" else ():
            is_name = (
                len(above.path) == 2 and above.path[0] in SECTIONS and line.key not in model_keys(model_at(above.path))
            )
            if is_name or (above.value and line.key in model_keys(model_at(above.path[:-1]))):
                written = f"{line.key}: {line.value[:60]}".rstrip()
                edits = (Edit(line.start + line.indent, line.key_start, " " * (column - line.indent)),)
                message = f'"{line.key}" is a key of a map, not an item of a list'
                help_, path = f'write "{written}", without "- "', (*above.path[:-1], line.key)
                yield Slip(line.start + line.indent, 1, message, help_, edits, path)
                break


def _is_section(line: Line) -> bool:
    """Whether a line stands where a section has its names."""
    return len(line.path) == 1 and line.path[0] in SECTIONS


def _closing(text: str) -> str:
    """Return the brackets that a text in brackets lacks at its end, "" if it lacks none or others do not match."""
    lacks: list[str] = []
    for sign in text if text[:1] in ("[", "{") else "":
        if sign in _CLOSING:
            lacks.append(_CLOSING[sign])
        elif sign in "]}" and (not lacks or lacks.pop() != sign):
            return ""
    return "".join(reversed(lacks))


def _language_keys() -> frozenset[str]:
    found: list[type[SpecModel]] = [SpecModel]
    for model in found:
        found += model.__subclasses__()
    return frozenset(key for model in found for key in model_keys(model))
