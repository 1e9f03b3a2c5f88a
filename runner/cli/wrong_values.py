"""Explains values that an option or an argument does not take."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from runner.cli.misplaced import is_pipeline, list_folder, names_in
from runner.cli.rewrite import LEFT_OUT, Help, Rewrite, Rules, Wrong, choice_of, error_of, with_variable
from runner.config.messages import closest


def sentence(message: str) -> str:
    text = message.strip().removesuffix(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _instead(at: Wrong, by: Sequence[str], before: str = "write", after: str = "") -> Help:
    """Return the command line with other words in place of a wrong value: options replace its option, [] both.

    Words for a value that is not on the command line come at its end; a variable is named for its own value.
    """
    words, label, word = at.words, at.name, str(getattr(at.error, "word", ""))
    if label.startswith("RUNNER_"):
        return f"{before} {label}={shlex.quote(' '.join(by))}{after}"
    beside = [*enumerate(pairwise([*words, ""]))]
    size = 1 if getattr(at.own.get(label), "is_flag", False) else 2
    places = [(i, i + size, value * (size - 1)) for i, (item, value) in beside if item == label and label[:1] == "-"]
    places += [(i, i + 1, item.partition("=")[2]) for i, (item, _) in beside if label and item.startswith(f"{label}=")]
    places += [(i, i + 1, item) for i, (item, _) in beside if word and item == word and label[:1] != "-"]
    if not (places or by):
        return f"leave {label} out: a variable sets it"
    likely = [each for each in places if word == each[2]] or [each for each in places if each[2] in at.error.message]
    start, end, old = ([(len(words), len(words), "")] + (likely or places))[-1]
    new = [label, *by] if label[:1] == "-" and by[:1] and by[0][:2] != "--" else by
    is_file = isinstance(getattr(at.own.get(label), "type", None), click.Path)
    kept = [old] if is_pipeline(old) and not is_file and old not in by else []
    return Rewrite([*words[:start], *new, *kept, *words[end:]], before, after)


def _option_for_a_value(at: Wrong) -> Any:
    option = next(iter(at.after), "").partition("=")[0]
    if at.name[:2] != "--" or not re.match("--?[A-Za-z]", option) or option in at.own:
        return None
    lines = [[*at.before, at.name, *at.after[start:]] for start in (1, 2)]  # it may have a value of its own
    line = next((each for each in lines if error_of(each) is None), lines[0])
    return f'"{option}" stands in place of its value', Rewrite(line, LEFT_OUT)


def _duration_in_two_words(at: Wrong) -> Any:
    from runner.config import guesses

    if " is not a duration" not in at.error.message or guesses.duration(at.value):
        return None
    meant = guesses.duration(" ".join([at.value, *at.after[:1]]))
    return meant and (sentence(at.error.message), Rewrite([*at.before, at.name, meant, *at.after[1:]]))


def _other_words(at: Wrong) -> Any:
    by = getattr(at.error, "by", None)
    return None if by is None else (sentence(at.error.message), _instead(at, by, at.error.hint, at.error.after))


def _not_a_choice(at: Wrong) -> Any:
    value, is_it, _ = at.error.message.partition(" is not one of ")
    if not is_it:
        return None
    value, choices = value.strip("'\""), [str(each) for each in at.error.param.type.choices]
    listed = ", ".join(choices)
    guess, after = choice_of(value.rpartition(".")[2], choices) or closest(value, choices), f" > {shlex.quote(value)}"
    help_ = _instead(at, [guess or ""], after=after if "." in value else "")
    return f'"{value}" is none of: {listed}', help_ if guess else f"write one of: {listed}"


def _missing_file(at: Wrong) -> Any:
    found = re.search(r"'(.+)' does not exist", at.error.message)
    if found is None:
        return None
    folder, base = os.path.split(name := found[1])
    near = [each for each in list_folder(folder or ".") if base[:1] == "." and base.startswith(f"{each}.")]
    guess = closest(base, list_folder(folder or "."), likeness=0.75) or next(iter(near), "")
    help_ = _instead(at, [os.path.join(folder, guess)]) if guess else "correct the path"
    if re.match(r"[A-Za-z_]\w*=", name):
        help_ = with_variable(name, Wrong(at.context, at.words, at.name).line().words)
    return f'there is no file "{name}"', help_


def _folder_for_a_file(at: Wrong) -> Any:
    if found := re.search(r"'(.+)' is a directory", at.error.message):
        line = _instead(at, [os.path.join(found[1], "NAME")], "write the name of a file in it")
        return f'"{found[1]}" is a folder', line
    return None


def _wrong_number(at: Wrong) -> Any:
    parameter, value = at.error.param, re.sub("^'|'? is not .*", "", at.error.message)
    kind = getattr(parameter, "type", None)
    if not isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return None
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    limits = f" from {least:g}" if least is not None else ""
    limits += f" to {most:g}" if most is not None else " on" if limits else ""
    what = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
    message = f"must be {what}{limits}, not {value}"
    if value in ("auto", "max", "cpus", "cores") and at.name == "--workers":
        return message, _instead(at, [str(os.cpu_count() or 1)], "for one on each core of this machine, write")
    if value in ("all", "none", "unlimited", "0") and not isinstance(parameter.default, int):
        return message, _instead(at, [], LEFT_OUT)
    given = re.match(r"-?\d+", value)
    near = min(max(int(given[0]) if given else 1, least or 1), most or sys.maxsize)
    after = "" if given else " (an example)" if value.isupper() else f' (an example, as "{value}" is no number)'
    return message, _instead(at, [f"{near:g}"], after=after)


def _without_value(at: Wrong) -> Help:
    flag, value = [*at.after, "", ""][:2]
    if getattr(at.own.get(flag), "is_flag", False) and value and value[:1] != "-" and not is_pipeline(value):
        return Rewrite([*at.before, at.name, value, flag, *at.after[2:]])
    names = [each for item in at.words if is_pipeline(item) for each in names_in(item, "queues")]
    word = next(iter(names), "NAME") if at.name == "--recreate" else example(at.context, at.own.get(at.name))
    return at.line() if at.after[:1] == [at.name] else at.line(at.name, word, *at.kept)


def example(context: click.Context, parameter: click.Parameter | None) -> str:
    kind = getattr(parameter, "type", None)
    if isinstance(kind, click.Choice):
        return str(next(iter(kind.choices)))
    return parameter.make_metavar(context) if parameter is not None else "VALUE"


VALUES: Rules = {
    "an option in place of a value": _option_for_a_value,
    "a duration in two words": _duration_in_two_words,
    "a value, and other words for it": _other_words,
    "not one of the choices": _not_a_choice,
    "a file that is not there": _missing_file,
    "a folder for a file": _folder_for_a_file,
    "not a number, or too small": _wrong_number,
    "another bad value": lambda at: (sentence(at.error.message), getattr(at.error, "hint", "")),
}
NO_VALUE: Rules = {"an option without its value": _without_value}
