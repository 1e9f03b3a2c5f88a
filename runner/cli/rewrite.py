"""A command line to write instead of a wrong one, and the words of other programs, which are in `usage.txt`."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import click

from runner.cli import cli
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

    def __init__(self, answer: tuple[str, Help], context: click.Context) -> None:
        super().__init__(answer[0], context)
        self.answer = answer


class Wrong:
    """A wrong command line: the word that is wrong, with its value if it is an option, and the words beside it."""

    def __init__(self, context: click.Context, words: Sequence[str], name: str, error: Any = None) -> None:
        self.context, self.words, self.name, self.error = context, list(words), name, error
        self.command, self.path, self.verb = context.command, context.command_path, context.info_name
        self.start = self.path.count(" ")  # of what follows the command
        self.parameters = {item.name for item in self.command.params}
        self.own = {each: item for item in self.command.params if isinstance(item, click.Option) for each in item.opts}
        self.known = self.command.list_commands(context) if isinstance(self.command, click.Group) else []
        self.before, self.value, self.after, self.kept = _around(self.words, name, self.start)
        self.option, self.last = ["", "", *self.before][-2:]

    def line(self, *words: str, end: Sequence[str] = (), before: str = "write", after: str = "") -> Rewrite:
        """Return the command line with other words in place of the wrong one, and some at the end."""
        return Rewrite([*self.before, *words, *self.after, *end], before, after)

    def joined(self, sign: str) -> Rewrite:
        """Return the command line in which the wrong word is the end of the word before it."""
        last = self.last if sign == " " else self.last.rstrip(":=")  # KEY: VALUE, as in YAML
        return Rewrite([*self.before[:-1], f"{last}{sign}{self.name}", *self.after])


def _around(words: list[str], name: str, start: int) -> tuple[list[str], str, list[str], list[str]]:
    """Return what stands before a word, its value if it is an option, and what stands after it.

    The last item is the value again, as a list, if it may be an argument that only follows a flag.
    """
    if name[:1] != "-":
        places = ((i, j) for i in range(start, len(words)) for j in range(i + 1, len(words) + 1))
        i, j = next((each for each in places if " ".join(words[slice(*each)]) == name), (len(words), len(words)))
        return words[:i], "", words[j:], []
    index = next((index for index, item in enumerate(words) if item.partition("=")[0] == name), -1)
    if index < 0:  # it is one of several letters after one dash, or has its value right behind it
        index = next((i for i, item in enumerate(words) if re.match(rf"-\w*{name[-1]}", item)), len(words))
        first, _, last = "".join(words[index : index + 1]).partition(name[-1])
        letters = first + (last.replace(name[-1], "") if last.isalpha() else "")
        before = [*words[:index], *([letters] if len(letters) > 1 else [])]
        return before, "" if last.isalpha() else last, words[index + 1 :], []
    before, value, after = words[:index], words[index].partition("=")[2], words[index + 1 :]
    kept = after[:1] if "=" not in words[index] and after and after[0][:1] != "-" else []
    return before, value or "".join(kept), after[len(kept) :], kept


Help = str | Rewrite
Rules = dict[str, Callable[[Wrong], Any]]
"""Mistakes in their order. A rule returns the help, or the message and the help; something false for other mistakes."""


def explained(rules: Rules, wrong: Wrong, said: str) -> tuple[str, Help] | None:
    """Return the message and the help of the first rule that has a help; `said` is the message if it has none."""
    for rule in rules.values():
        if answer := rule(wrong):
            return answer if isinstance(answer, tuple) else (said, answer)
    return None


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


def choice_of(value: str, choices: Sequence[str]) -> str:
    """Return the choice that a value is, or means in other programs; "" if none."""
    word = value.lower()
    known = (meant for meant, words, _ in words_meant("value") if word in words and meant in choices)
    return word if word in choices else next(known, "")


def error_of(words: Sequence[str]) -> click.UsageError | None:
    """Return what is wrong with a command line, None if it can be run. No command runs."""
    if {"-h", "--help", "--version"} & set(words) or words[:1] == ["help"]:
        return None
    context, rest = click.Context(cli, info_name="runner"), list(words)
    try:
        while rest and isinstance(context.command, click.Group):
            name, command, rest = context.command.resolve_command(context, rest)
            context = click.Context(command or context.command, info_name=name, parent=context)
        with redirect_stderr(io.StringIO()):  # it has warned of variables already
            context.command.parse_args(context, rest)
    except click.UsageError as error:
        return error
    return None


def with_variable(variable: str, words: Sequence[str]) -> str:
    set_ = shlex.quote(mask_passwords(variable))
    return f"write the variable before the command: {set_} runner {shlex.join(words)}"
