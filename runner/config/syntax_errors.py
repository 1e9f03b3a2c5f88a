"""Explains syntax errors of PyYAML: what is wrong, at the position of the mistake, not where the parser noticed it."""

from __future__ import annotations

import re
from typing import Any

from runner.config.positions import Lines
from runner.errors import Problem
from runner.tables import read_table

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}
_MARKS = str.maketrans("", "", "⟦⟪⟩")
_MAX_BEFORE, _MAX_BEHIND = 3000, 1000
"""How many characters are looked at before the construct, and behind the error."""


def explain_syntax_error(error: Any, text: str, lines: Lines) -> Problem:
    """Return the problem for an error of PyYAML's scanner or parser."""
    problem, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    at = problem.index if problem else 0
    begin = min(context.index if context else at, at)
    phrase = f"{getattr(error, 'context', None) or ''}: {getattr(error, 'problem', None) or ''}"
    first = max(0, begin - _MAX_BEFORE)
    closed = "⟩" if _is_closed(text[begin:]) else ""
    whole = f"{closed}{text[first:begin]}⟦{text[begin:at]}⟪{text[at : at + _MAX_BEHIND]}"
    for phrases, message, help_, pattern in read_table("runner.config", "syntax_errors.txt", 4):
        marked = whole if "⟦" in pattern else whole.replace("⟦", "").lstrip("⟩")
        match = re.search(pattern, marked, re.MULTILINE) if re.search(phrases.replace(" / ", "|"), phrase) else None
        if match is not None:
            start = match.start("here") if "here" in match.re.groupindex else -1
            shown = match["here"].translate(_MARKS) if start >= 0 else ""
            words = {name: (value or "").translate(_MARKS) for name, value in match.groupdict().items()}
            words |= {"here": shown[:40], "pipe": "|", "close": _CLOSING.get(words.get("open", ""), "")}
            start = first + len(marked[:start].translate(_MARKS)) if start >= 0 else at
            return _problem(lines, start, len(shown) or 1, *(_filled(each, words) for each in (message, help_)))
    return _problem(lines, at, 1, "this is not valid YAML", "check the indentation, quotes and brackets around here")


def _problem(lines: Lines, start: int, length: int, message: str, help_: str) -> Problem:
    start = min(start, lines.last_index())
    return lines.span(start, start + length).problem("yaml-syntax", message, help_)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: words.get(match[1], match[0]), text)


def _is_closed(text: str) -> bool:
    """Whether the bracket at the start of a text is closed in it, by counting brackets."""
    depth = 0
    for character in re.findall(r"[\[\]{}]", _QUOTED.sub("", text)):
        depth += 1 if character in "[{" else -1
        if depth == 0:
            return True
    return False
