"""Explains syntax errors of PyYAML: what is wrong, at the position of the mistake, not where the parser noticed it.

PyYAML has two parsers with different messages (libyaml and its own). The patterns below match both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from runner.config.positions import Lines
from runner.errors import Problem


class _Error(NamedTuple):
    """A syntax error: the phrases of the parser, the index of the error, and the start of the construct (`begin`)."""

    phrase: str
    begin: int
    at: int
    text: str

    @property
    def line(self) -> str:
        """The part of the line before the error."""
        return self.text[max(self.text.rfind("\n", 0, self.at), self.text.rfind("\r", 0, self.at)) + 1 : self.at]

    @property
    def character(self) -> str:
        """The character at the error, "" at the end of the text."""
        return self.text[self.at : self.at + 1]

    @property
    def above(self) -> list[str]:
        """The lines above the error that are not blank, the nearest first."""
        lines = self.text[: self.at - len(self.line)].splitlines()
        return [line for line in reversed(lines) if line.strip()]


class _Verdict(NamedTuple):
    """The explanation of an error, and its position in the text."""

    message: str
    help: str
    start: int
    length: int = 1


def explain_syntax_error(error: Any, text: str, lines: Lines) -> Problem:
    """Return the problem for an error of PyYAML's scanner or parser."""
    found = _read(error, text)
    verdict = next(
        (verdict for pattern, judge in _RULES if pattern.search(found.phrase) and (verdict := judge(found))),
        _Verdict("this is not valid YAML", "check the indentation, quotes and brackets around here", found.at),
    )
    start = min(verdict.start, lines.last_index())
    span = lines.span(start, start + verdict.length)
    return span.problem("yaml-syntax", verdict.message, verdict.help)


def _read(error: Any, text: str) -> _Error:
    problem_mark, context_mark = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    at = problem_mark.index if problem_mark else 0
    begin = context_mark.index if context_mark else at
    phrase = f"{getattr(error, 'context', None) or ''}: {getattr(error, 'problem', None) or ''}"
    return _Error(phrase, begin, at, text)


def _tab(error: _Error) -> _Verdict | None:
    blank = re.compile(r"[ \t]*").match(error.text, error.at - len(error.line))
    index = error.text.find("\t", error.at - len(error.line), blank.end() if blank else 0)
    if index < 0 and error.text[error.at : error.at + 1] == "\t":
        index = error.at
    if index < 0:
        return None
    return _Verdict("a tab cannot indent or separate here", "use spaces", index)


def _variable_in_flow(error: _Error) -> _Verdict | None:
    if error.text[error.at - 1 : error.at + 1] != "${":
        return None
    end = error.text.find("}", error.at)
    length = end - error.at + 2 if end >= 0 else 2
    return _Verdict('"${…}" inside [ ] or { } needs quotes', 'put it in quotes: "${NAME}"', error.at - 1, length)


_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)


def _is_closed(text: str) -> bool:
    """Whether the bracket at the start of a text is closed in it, by counting brackets."""
    depth = 0
    for character in re.findall(r"[\[\]{}]", _QUOTED.sub("", text)):
        depth += 1 if character in "[{" else -1
        if depth == 0:
            return True
    return False


def _unclosed_bracket(error: _Error) -> _Verdict:
    opening = error.text[error.begin : error.begin + 1]
    closing = "]" if opening == "[" else "}"
    is_one_line = "\n" not in error.text[error.begin : error.at]
    if is_one_line and error.character and error.character in "]}":
        message = f'this "{error.character}" cannot close the "{opening}" before it'
        return _Verdict(message, f'write "{closing}" before it, or remove it', error.at)
    if not error.text[error.at :].strip() or not (is_one_line or _is_closed(error.text[error.begin :])):
        return _Verdict(
            f'this "{opening}" is not closed', f'add "{closing}", and a comma between its parts', error.begin
        )
    return _Verdict(f'a "," or "{closing}" is missing here', "put a comma between the parts", error.at)


def _unclosed_quote(error: _Error) -> _Verdict:
    quote = error.text[error.begin : error.begin + 1]
    return _Verdict("this quote is not closed", f"add the closing {quote}", error.begin)


def _escape(error: _Error) -> _Verdict:
    message = 'this "\\" does not start an escape that YAML knows'
    start = error.text.rfind("\\", 0, error.at + 1)
    return _Verdict(message, "use single quotes, or write the backslash twice", start if start >= 0 else error.at, 2)


def _missing_colon(error: _Error) -> _Verdict:
    written = re.compile(r"[^\r\n]*").match(error.text, error.begin)
    key = written[0].rstrip() if written else ""
    start = error.text[: error.begin].rpartition("\n")[2]
    if re.match(r"(<{7}|={7}|>{7})( |$)", key):
        return _Verdict(
            "this is a mark of a merge conflict", "keep one side, and remove the marks", error.begin, len(key)
        )
    if not start.strip() and re.match(rf"{start}- ", next(iter(_replaced(error, error.begin).above), "")):
        return _not_an_item(_replaced(error, error.begin))
    return _no_colon(key, error.begin)


def _replaced(error: _Error, at: int) -> _Error:
    return error._replace(at=at)


def _no_colon(key: str, start: int) -> _Verdict:
    """Return the verdict on a line without a colon."""
    words = key.split()
    if key.startswith(("//", "/*")):
        return _Verdict('a comment starts with "#"', f'write "# {key.lstrip("/* ")[:40]}"', start, len(key))
    if len(words) == 1:
        help_ = f'write "{key[:40]}:"'
    elif len(words) == 2:
        help_ = f'write "{words[0][:40]}: {words[1][:40]}"'
    else:
        help_ = 'write "key: value", or indent it as part of the value above'
    return _Verdict('a ":" is missing after this key', help_, start, max(1, len(key)))


def _second_value(error: _Error) -> _Verdict:
    """Return the verdict on a colon where no value can start: a second one, or one below a line that is not a key."""
    if re.search(r":\s", error.line):
        return _Verdict('a second ":" in one line', "put the value in quotes, or start a new line", error.at)
    above_end = len(error.text[: error.at - len(error.line)].rstrip())
    above_start = error.text.rfind("\n", 0, above_end) + 1
    above = error.text[above_start:above_end]
    key = above.strip()
    start = above_start + len(above) - len(above.lstrip())
    if ":" not in key and key:
        return _no_colon(key, start)
    if not re.search(r":(\s|$)", key) and key:
        name, _, value = key.partition(":")
        help_ = f'write "{name[:40]}: {value[:40]}"'
        return _Verdict('a space is missing after the ":"', help_, above_start + above.find(":"))
    return _Verdict("this line is indented deeper than its map", "line up the keys of one map", error.at - len(
        error.line.lstrip()), len(error.line.lstrip()))  # fmt: skip


def _list_here(error: _Error) -> _Verdict:
    return _Verdict('a list with "-" cannot start here', "start it on the line below, or write [a, b]", error.at)


def _misplaced(error: _Error) -> _Verdict:
    before = error.line.strip()
    if not before and next(iter(error.above), "").startswith("..."):
        return _document(error)
    if outdented := _outdented(error):
        return outdented
    if before and error.character in ("]", "}"):
        return _Verdict(
            f'this "{error.character}" closes nothing', "remove it, or put the whole value in quotes", error.at
        )
    if error.character == "*" and (anchor := re.search(r"&\S+$", before)):
        help_ = f'remove "{anchor[0]}": the alias is enough'
        start = error.at - len(error.line) + error.line.rfind("&")
        return _Verdict("an anchor cannot come before an alias", help_, start, len(anchor[0]))
    if before.endswith("'"):
        help_ = "put the whole value in double quotes, or write '' for an apostrophe"
        return _Verdict("nothing can follow the value here", help_, error.at)
    if before:
        return _Verdict("nothing can follow the value here", "put the whole value in quotes", error.at)
    if error.character == ":":
        return _Verdict('there is no key before this ":"', "write one, or remove the line", error.at)
    if _is_in_block_text(error):
        help_ = "give all lines of the text the same indentation, blank ones too"
        return _Verdict('this line is indented less than its text after "|" or ">"', help_, error.at)
    kind = "items of one list" if error.text.startswith("- ", error.at) else "keys of one map"
    return _Verdict(
        "this line does not line up with the lines above", f"give all {kind} the same indentation", error.at
    )


def _is_in_block_text(error: _Error) -> bool:
    """Whether a line is a part of a text after `|` or `>`: the nearest less indented line starts such a text."""
    indentation = len(error.line)
    parent = next((line for line in error.above if len(line) - len(line.lstrip()) < indentation), "")
    return re.search(r"[:-]\s+[|>][-+0-9]*\s*(#.*)?$", parent) is not None


def _not_an_item(error: _Error) -> _Verdict:
    return _Verdict("this line is not part of the list above", 'start it with "- ", or indent it deeper', error.at)


def _cannot_start(error: _Error) -> _Verdict:
    character = error.text[error.at : error.at + 1]
    return _Verdict(f'a value cannot start with "{character}"', "put it in quotes", error.at)


def _no_value(error: _Error) -> _Verdict:
    if not error.text[error.at :].strip():
        return _Verdict("the file ends in the middle of a value", "close every [ and {", error.at)
    character = error.text[error.at : error.at + 1]
    return _Verdict(f'there is no value before this "{character}"', "write one, or remove it", error.at)


def _anchor(error: _Error) -> _Verdict:
    sign = error.text[error.begin : error.begin + 1]
    return _Verdict(f'"{sign}" has a meaning of its own in YAML', f'put a value that starts with "{sign}" in quotes',
                    error.begin)  # fmt: skip


def _tag(error: _Error) -> _Verdict:
    return _Verdict("YAML tags (!…) are not allowed", 'put a value that starts with "!" in quotes', error.begin)


def _block_text(error: _Error) -> _Verdict:
    return _Verdict('only a line break can follow "|" or ">"', "start the text on the line below", error.begin)


def _directive(error: _Error) -> _Verdict:
    start = error.at - len(error.line)
    help_ = 'remove the line, or put a key that starts with "%" in quotes'
    return _Verdict("YAML directives (%…) are not supported", help_, start)


def _outdented(error: _Error) -> _Verdict | None:
    """Return the verdict on a line without indentation in a file whose first line is indented."""
    lines = error.above
    first = next((line for line in reversed(lines) if not line.lstrip().startswith("#")), "")
    if error.line or not first.startswith(" ") or any(line.startswith("...") for line in lines):
        return None
    help_ = "give all keys of the file the same indentation, best none"
    return _Verdict("this line is indented less than the first line", help_, error.at)


def _document(error: _Error) -> _Verdict:
    lines = error.above
    if lines and lines[0].startswith("%"):
        return _directive(error._replace(at=error.text.rfind("\n" + lines[0], 0, error.at) + 1))
    if outdented := _outdented(error):
        return outdented
    if not any(line.startswith("...") for line in lines):
        return _Verdict("nothing can follow the value here", 'start a pipeline with the line "version: 1"', error.at)
    help_ = 'a file holds one pipeline: remove the "..." above, or what follows it'
    return _Verdict("nothing can follow the end of the document", help_, error.at)


_RULES: list[tuple[re.Pattern[str], Callable[[_Error], _Verdict | None]]] = [
    (re.compile(pattern), judge)
    for pattern, judge in (
        (r"tab character|cannot start any token", _tab),
        (r"expected ',' or", _variable_in_flow),
        (r"expected ',' or", _unclosed_bracket),
        (r"quoted.*(end of stream|document (indicator|separator))", _unclosed_quote),
        (r"quoted.*(escape|hexdec)", _escape),
        (r"could not find expected ':'", _missing_colon),
        (r"mapping (values|keys) are not allowed", _second_value),
        (r"sequence entries are not allowed", _list_here),
        (r"(an|a) (anchor|alias)", _anchor),
        (r"(scanning|parsing) a tag|undefined tag handle|non-specific tag|tag URI", _tag),
        (r"block scalar", _block_text),
        (r"block mapping", _misplaced),
        (r"block collection", _not_an_item),
        (r"cannot start any token", _cannot_start),
        (r"node content", _no_value),
        (r"directive|%YAML|%TAG|incompatible|tag handle", _directive),
        (r"<document start>|DOCUMENT", _document),
    )
]
