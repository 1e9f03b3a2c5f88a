"""A command line to write instead of a wrong one, and the words of other programs, which are in `usage.txt`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from runner.redaction import mask_passwords
from runner.tables import read_table

LEFT_OUT = "leave it out"
"""What is said before a command line in which a word is missing."""


@dataclass(frozen=True)
class Rewrite:
    """A command line to write instead, as words without `runner`, with what is said before and after it."""

    words: list[str]
    before: str = "write"
    after: str = ""

    def __str__(self) -> str:
        shown = [shlex.quote(word) if mask_passwords(word) == word else _without_secret(word) for word in self.words]
        remark = " (… is the URL as you wrote it)" if mask_passwords(text := " ".join(self.words)) != text else ""
        return f"{self.before}: runner {' '.join(shown)}{self.after}{remark}"


def _without_secret(word: str) -> str:
    return f"{word.partition('=')[0]}=…" if word.startswith("--") else "…"


class WrongPath(click.UsageError):
    """A name, or an option with a long dash, stands where the path of a pipeline belongs."""

    def __init__(self, message: str, context: click.Context, path: str) -> None:
        super().__init__(message, context)
        self.path = path


Help = str | Rewrite


def words_meant(kind: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield the rows of `usage.txt` for commands or options: what is meant, the words for it, and a help."""
    for row, meant, words, help_ in read_table("runner.cli", "usage.txt", 4):
        if row == kind:
            yield meant, words.split(), help_


def joined(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line, with the pieces of a `--set` that a shell has split put together."""
    words: list[str] = []
    for item in arguments:
        is_set = words and (words[-1].startswith("--set=") or (words[-2:-1] == ["--set"] and "=" in words[-1]))
        if is_set and sum(map(words[-1].count, "{[")) > sum(map(words[-1].count, "}]")):
            words[-1] += f" {item}"
        else:
            words.append(item)
    return words


def flag_with(flag: str, value: str) -> list[str]:
    """Return a flag, and the option that takes a value which was given to it, as `usage.txt` knows it."""
    pattern = r"\d+(\.\d+)?(ms|[smhd%])?"
    option = next(
        (words[0] for meant, words, _ in words_meant("flag") if meant == flag and re.fullmatch(pattern, value)), ""
    )
    if not option:
        return [flag]
    if option == "--interval":
        return [flag, option, f"{value}s" if value.isdecimal() else value]  # as `watch -n 5` takes it
    return [option, value.rstrip("%")]
