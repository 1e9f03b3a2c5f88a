"""Explains wrong usage of the command line: what is at, and which command line is meant.

`_KINDS`, at the end, has the kinds of mistakes, and for each a table of rules.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from runner.cli import cli
from runner.cli.misplaced import NAMED, READS, file_with, from_git, is_pipeline, names_in, pipelines_here, without_names
from runner.cli.rewrite import (
    LEFT_OUT,
    Help,
    Rewrite,
    Rules,
    Wrong,
    WrongPath,
    choice_of,
    error_of,
    explained,
    flag_with,
    joined,
    with_variable,
    words_meant,
)
from runner.cli.wrong_values import NO_VALUE, VALUES, example, sentence
from runner.config.messages import closest
from runner.tables import filled

_PAYLOADS = {"publish": ['{"id": 1}'], "call": ['{"id": 1}']}
_NAMED = {"pause": ("subscribers",), "resume": ("subscribers",), "tap": ("events", "queues")}

_YAML = (".yaml", ".yml")
_DRY = ("--dry-run", "--check", "--plan", "--simulate", "--diff")

_SELECTS = {"--yes", "--body"}
"""Options of commands that change many messages: an option that is not known may be a filter, and is not left out."""

_FILTERS = {"--id", "--error", "--older-than", "--event", "--header", "--body", "--all"}
"""Options that choose dead letters: one of them is needed to change many without a question."""

_PORT = "for the broker, write it in the URL: --broker amqp://HOST:{0}; for HTTP, --http 127.0.0.1:{0}"

_MAX_STEPS = 8
"""How many mistakes of one command line are mended together."""


def explain_usage(error: click.UsageError, arguments: Sequence[str]) -> tuple[str, str]:
    """Return the message and the help for wrong usage. `arguments` are those of the command line.

    A command line in the help has no second mistake that is known: it can be run as it stands.
    """
    message, help_ = _explain(error, list(arguments))
    if isinstance(help_, str) and isinstance(error, click.NoSuchOption) and error.ctx is not None:
        rest = _left_out(Wrong(error.ctx, arguments, error.option_name, error)).words
        if (further_error := error_of(rest)) is not None and isinstance(further_error, click.NoSuchOption):
            more, next_help = explain_usage(further_error, rest)
            return f"{message}; {more}", f"{help_}; {next_help}"
    for _ in range(_MAX_STEPS):
        if not isinstance(help_, Rewrite) or (next_error := error_of(help_.words)) is None:
            break
        more, further = _explain(next_error, help_.words)
        if not isinstance(further, Rewrite):
            is_new = further and not help_.after and " --help` has " not in further
            help_ = replace(help_, after=f"; then {further}") if is_new else help_
            break
        after, before = help_.after or further.after, help_.before if further.before == "write" else further.before
        if isinstance(next_error, click.NoSuchOption) and next_error.option_name not in message:
            message = f"{message}; {more}"
            if further.before == LEFT_OUT:
                before, after = help_.before, f", without {next_error.option_name}{after}"
        help_ = replace(further, before=before, after=after)
    return message, str(_with_tests(help_) if isinstance(help_, Rewrite) else help_)


def _with_tests(line: Rewrite) -> Rewrite:
    """Return a command line of `runner test` with the tests of a pipeline in place of the pipeline."""
    if line.words[:1] != ["test"]:
        return line
    from runner.config.suite_loader import tests_beside

    tests = {word: tests_beside(Path(word))[:3] for word in line.words if is_pipeline(word) and Path(word).is_file()}
    return replace(line, words=[each for word in line.words for each in tests.get(word) or [word]])


def _explain(error: click.UsageError, words: list[str]) -> tuple[str, Help]:
    context = error.ctx or click.Context(cli, info_name="runner")
    for kind, pattern, said, rules in _KINDS:
        if isinstance(error, kind) and (found := re.search(pattern, error.message)):
            name = "".join(found.groups()) or _label(context, error)
            message = filled(said, {"path": context.command_path, "name": name})
            if answer := explained(rules, Wrong(context, words, name, error), message):
                return (f"{name}: {answer[0]}", answer[1]) if rules is VALUES and name else answer
    options = f"`{context.command_path} --help` has the options and examples"
    return sentence(error.message), getattr(error, "hint", "") or options


def _label(context: click.Context, error: Any) -> str:
    """Return what is wrong: an option, an argument, or a variable that a value comes from."""
    parameter = getattr(error, "param", None)
    if parameter is None or error.param_hint:
        return str(getattr(error, "param_hint", "") or getattr(error, "option_name", ""))
    if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar or f"{context.auto_envvar_prefix}_{(parameter.name or '').upper()}")
    return str(parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(context))


# Commands


def _path_for_a_command(at: Wrong) -> Any:
    name, known, after = at.name, at.known, at.after
    if not Path(name).exists() and not name.endswith(_YAML):
        return None
    what = f'"{name}" is a {"folder" if Path(name).is_dir() else "file"}, not a command'
    verb = next((item for item in after if "." not in item and _command_meant(item, known)), "")
    rest = [name, *(item for item in after if item != verb)]
    if not verb and at.path == "runner export":
        return what, f"write a command before it: {', '.join(known)}"
    if at.path == "runner import":  # the file of messages comes before the pipeline
        rest = sorted(rest, key=is_pipeline) if any(item[:1] != "-" for item in rest[1:]) else ["FILE", *rest]
    default = next(item for item in ("up", "list", known[0]) if item in known)
    return what, Rewrite([*at.before, *(_command_meant(verb, known) if verb else [default]), *rest])


def _filled(name: str, given: list[str]) -> str:
    """Return the help of `usage.txt` for a command that is missing, with the user's PATH, all names and first NAME."""
    plain = [item for item in given if item[:1] != "-"]
    path = next(iter([*filter(is_pipeline, plain), *pipelines_here()]), "PATH")
    names = [shlex.quote(item) for item in plain if item != path]
    words = {
        " NAMES": "".join(f" {name}" for name in names),
        "NAME": next(iter(names), "NAME"),
        "PATH": shlex.quote(path),
        "SHELL": next((item for item in plain if item in ("zsh", "fish")), "bash"),
    }
    helps = (help_ for meant, others, help_ in words_meant("command") if meant == "-" and name.lower() in others)
    return re.sub("|".join(words), lambda found: words[found[0]], next(helps, ""))


def _command_meant(name: str, known: Sequence[str]) -> list[str]:
    """Return the command, in words, that a word of another program means, or a misspelt one; empty if none."""
    word = name.lower()
    if word in known:
        return [word]
    for meant, words, _ in words_meant("command"):
        if word in words and (meant == "-" or meant.split()[0] in known):
            return [] if meant == "-" else meant.split()
    near = closest(word, known, likeness=0.7)
    return [near] if near else []


_COMMANDS: Rules = {
    "a path, and no command": _path_for_a_command,
    "a file to import": lambda at: (
        at.path == "runner import"
        and any(map(is_pipeline, at.after))
        and (f'"{at.name}" is a file, not a command', at.line("messages", at.name))
    ),
    "another word for a command": lambda at: (meant := _command_meant(at.name, at.known)) and at.line(*meant),
    "a command that is not here": lambda at: not at.context.parent and _filled(at.name, at.after),
    "an unknown command": lambda at: f"write one of: {', '.join(at.known)}",
}


# Options


def _option_before_the_command(at: Wrong) -> Any:
    words, known, name = at.words, at.known, at.name
    start = next((index for index, item in enumerate(words) if item.partition("=")[0] == name), 0)
    for index, item in enumerate(words[start + 1 :], start + 1):
        if item[:1] != "-" and (meant := _command_meant(item, known)):
            return Rewrite([*words[:start], *meant, *words[start:index], *words[index + 1 :]])
    example = f"{at.path} {'up' if 'up' in known else known[0]} {name} …"
    return known and f"options come after the command, as in `{example}`"


def _file_for_the_output(at: Wrong) -> Any:
    """Return the command line that writes its output to the file that an option names."""
    file, own, words = at.value, at.own, [*at.before, *at.after]
    names = next(words for meant, words, _ in words_meant("option") if meant == "--output")
    if at.name not in ("--output", *names) or "--output" in own or "." not in file:
        return None
    choices, (stem, _, suffix) = getattr(getattr(own.get("--format"), "type", 0), "choices", ()), file.rpartition(".")
    meant = choice_of(suffix, choices)
    if suffix == "json" and not choices and "--json" in own:
        words += [] if "--json" in words else ["--json"]
    if meant and "--format" not in words:
        words += ["--format", meant]
    if choice_of(suffix, choices) == "svg":
        file = f"{stem}.svg"
    return Rewrite(words, after=f" > {shlex.quote(file)}")


def _option_of_another_program(at: Wrong) -> Any:
    """Return what `usage.txt` says of an option: the first row whose meaning the command has."""
    arguments = {meant: {*words} for meant, words, _ in words_meant("argument")}
    remark: Help = ""
    for meant, words, text in words_meant("option"):
        first = meant.partition(" ")[0]
        if at.name not in (*words, first) or (first == "PAYLOADS" and "payload" not in at.parameters):
            continue
        if first == "--overlay" and "=" in at.value:
            continue
        if at.value and at.parameters & arguments.get(first, set()):
            return Rewrite(_placed(at, first), "write the value without an option")
        if first == "CONCURRENCY" and at.verb in ("up", "dev") and at.value.isdecimal():
            return _concurrency([*at.before, *at.after], at.value)
        if first in at.own:
            return _as_option(at, meant)
        if text.startswith(LEFT_OUT) or (at.name in _DRY and at.verb in READS):
            return _without(_left_out(at), "" if at.name in _DRY else text.removeprefix(LEFT_OUT))
        remark = text or remark or ("" if _SELECTS & {*at.own} else _left_out(at))
    return remark


def _as_option(at: Wrong, meant: str) -> Rewrite:
    """Return the command line with an option of `usage.txt`, and its value as that takes it."""
    if meant == "--json" and at.value:
        after = f" > {shlex.quote(at.value)}" if "." in at.value else ""
        return at.line(meant, after=after) if "json" in at.value.lower() else at.line(before=LEFT_OUT)
    if meant == "--yes" and "--all" in at.own and not _FILTERS & {item.partition("=")[0] for item in at.words}:
        meant = "--yes --all"
    given, kept = ("", at.kept) if is_pipeline(at.value) and meant != "--overlay" else (at.value, [])
    value = _TAKEN.get(meant, str)(given)
    option, _, setting = meant.partition(" ")
    return at.line(option, *filter(None, [f"{setting}{value}"] if setting[-1:] == "=" else [setting, value]), *kept)


_TAKEN: dict[str, Callable[[str], str]] = {
    "--http": lambda value: re.sub(r"^:?(\d+)$", r"127.0.0.1:\1", value),
    "--overlay": lambda value: value if Path(value).suffix else f"{value}.yaml",
    "--workers": lambda value: (re.findall(r"\d+$", value) or [value or "N"])[0],
}
"""The form in which an option takes a value of another program."""


def _misspelt_option(at: Wrong) -> Any:
    name, own = at.name, at.own
    parts = (each for each in own if name.startswith(f"{each}-") or (len(name) > 3 and each.startswith(name)))
    ends = (each for each in own if each.endswith(name[1:]))
    near = next(parts, None) or closest(name, own, likeness=0.75) or next(ends, None)
    return near and Rewrite([re.sub(rf"^{re.escape(name)}(?=$|=)", near, item) for item in at.words])


def _option_of_another_command(at: Wrong) -> Any:
    context = click.Context(cli, info_name="runner")
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    others = [name for name, item in commands.items() if item and any(at.name in each.opts for each in item.params)]
    reason = f"; only {' and '.join(f'`runner {other}`' for other in others)} {'have' if others[1:] else 'has'} it"
    is_said = 0 < len(others) <= 3 and not _SELECTS & {*at.own}
    return is_said and replace(_left_out(at), after=reason)


def _unknown_option(at: Wrong) -> Any:
    options = ", ".join(option for option in at.own if option.startswith("--"))
    leave = "" if _SELECTS & {*at.own} else "; or leave it out"
    return f"write one of: {options}{leave}" if options else str(_left_out(at))


def _without(left: Rewrite, remark: str) -> Rewrite:
    """Return the command line without an option, and why; also without `--fix`, if it was the option to only look."""
    if "--fix" in left.words and not remark:
        return Rewrite([item for item in left.words if item != "--fix"], "to look, and write nothing")
    return replace(left, after=f";{remark[1:]}" if remark[:1] == ":" else remark)


def _left_out(at: Wrong) -> Rewrite:
    """Return the command line without an option, and without its value unless that is an argument."""
    value, rest = at.value, at.line().words
    is_empty = os.path.isdir(value) and not any(Path(value).glob("*.y*ml"))
    is_argument = (is_pipeline(value) and not is_empty) or value[:1] in ("{", "[")
    is_argument = is_argument or ("://" not in value and isinstance(error_of(rest), click.MissingParameter))
    return at.line(*(at.kept if is_argument else []), before=LEFT_OUT)


def _concurrency(rest: list[str], value: str) -> Rewrite:
    """Return the settings that let each subscriber handle several messages at once."""
    files = [item for item in rest[1:] if os.path.exists(item)] or pipelines_here()[:1]
    only = [each for item, each in pairwise(["", *rest]) if item == "--only"]
    only += [item.partition("=")[2] for item in rest if item.startswith("--only=")]
    known = [each for file in files for each in names_in(file, "subscribers")]
    names = [each for each in known if each in only] or known or ["NAME"]
    settings = [part for each in names for part in ("--set", f"subscribers.{each}.concurrency={value}")]
    return Rewrite([*rest, *settings], "for each process, write", f"; for {value} processes, write --workers {value}")


def _placed(at: Wrong, where: str) -> list[str]:
    """Return the command line with a value as the argument PATH, NAME or PAYLOAD."""
    value, rest = at.value, at.line().words
    if where == "PATH" and not os.path.exists(value) and is_pipeline(f"{value}.yaml"):
        value = f"{value}.yaml"
    if where == "PATH" and not is_pipeline(value) and "payload" in at.parameters:
        where, value = "PAYLOAD", f"@{value}"
    if where == "PAYLOAD":
        return [*rest, value]
    start = at.start + (where == "NAME" and any(is_pipeline(item) for item in rest))
    return [*rest[:start], value, *rest[start:]]


def _one_dash(at: Wrong) -> Any:
    known = {*at.own, *(word for _, words, _ in words_meant("option") for word in words)}
    long = (item for item in at.words if item[:1] == "-" and item[1:2] != "-" and len(item.partition("=")[0]) > 2)
    one = next((item for item in long if f"-{item.partition('=')[0]}" in known), "")
    return one and (f'"{one}" has one dash', Rewrite([f"-{item}" if item == one else item for item in at.words]))


_OPTIONS: Rules = {
    "a long option with one dash": _one_dash,
    "the version": lambda at: at.words in (["-V"], ["-v"]) and Rewrite(["--version"]),
    "completion": lambda at: at.name in ("--install-completion", "--show-completion") and _filled("completion", []),
    "help, misspelt": lambda at: at.known and closest(at.name, ["--help"], likeness=0.7) and f"write: {at.path} --help",
    "an option before the command": lambda at: at.known and _option_before_the_command(at),
    "a variable": lambda at: (
        at.name in ("-e", "--env") and "=" in at.value and with_variable(at.value, at.line().words)
    ),
    "a file for the output": _file_for_the_output,
    "a second file, as in compose": lambda at: (
        at.name == "-f" and "--overlay" in at.own and at.last.endswith(_YAML) and at.line("--overlay", at.value)
    ),
    "a trial of a change": lambda at: (
        at.name in _DRY and at.verb in ("up", "apply") and Rewrite(["plan", *at.before[1:], *at.kept, *at.after])
    ),
    "the port of a broker": lambda at: at.name == "--port" and "--broker" in at.before and _PORT.format(at.value),
    "a number for one subscriber": lambda at: (
        re.fullmatch(r"[\w.-]+=\d+", at.value)
        and at.name in ("--scale", "--concurrency", "-c", "--replicas", "--instances")
        and "--set" in at.own
        and at.line("--set", f"subscribers.{at.value.replace('=', '.concurrency=')}")
    ),
    "the length of a pause": lambda at: (
        at.verb == "pause"
        and at.name in ("--for", "--duration", "--until", "--minutes", "-t")
        and replace(_left_out(at), after="; a pause lasts until `runner resume` ends it")
    ),
    "a broker": lambda at: re.match(r"amqps?://", at.value) and "--broker" in at.own and at.line("--broker", at.value),
    "a reason": lambda at: (
        at.name in ("-m", "--message", "--comment", "--note", "--why")
        and "--reason" in at.own
        and at.line("--reason", at.value)
    ),
    "an option of another program": _option_of_another_program,
    "a flag with no- before it": lambda at: (
        at.name.startswith("--no-") and f"--{at.name[5:]}" in at.own and at.line(*at.kept, before=LEFT_OUT)
    ),
    "a choice as an option": lambda at: (
        (found := [name for name, item in at.own.items() if at.name[2:] in getattr(item.type, "choices", ())])
        and at.line(found[0], at.name[2:], *at.kept)
    ),
    "a misspelt option": _misspelt_option,
    "an option of another command": _option_of_another_command,
    "an unknown option": _unknown_option,
}


# Arguments


def _missing_path(at: Wrong) -> Any:
    message = f"{at.path} needs the path of a pipeline"
    if at.error.param.name not in ("path", "paths"):
        return None
    for index, (name, value) in enumerate(pairwise(at.words)):
        option = at.own.get(name)
        if option and not option.is_flag and is_pipeline(value) and not isinstance(option.type, click.Path):
            words = [*at.words[: at.start], value, *at.words[at.start : index], name, example(at.context, option)]
            return f"{name} takes a value of its own, before the path", Rewrite([*words, *at.words[index + 2 :]])
    found = ["."] if at.verb == "test" else pipelines_here()
    if not found:
        return message, at.line("PATH", after="; `runner init` starts a project")
    words = [found[0]]
    if "name" in at.parameters:
        words += [next(iter(_names(at, found[0])), "NAME"), *_PAYLOADS.get(at.verb or "", [])]
    return message, at.line(*words, after=f" (there are also {', '.join(found[1:4])})" if found[1:] else "")


def _missing_name(at: Wrong) -> Any:
    file = at.context.params.get("path")
    if at.error.param.name != "name":
        return None
    if file and not os.path.exists(file):
        here = file_with(str(file)) or next(iter(pipelines_here()), "PATH")
        line = Rewrite([*at.words[: at.start], here, *at.words[at.start :]])
        return f"{at.path} needs the path of a pipeline before the name", line
    names = _names(at, file) if file else []
    words = [*(names[:1] or ["NAME"]), *_PAYLOADS.get(at.verb or "", [])]
    what = "a subscriber" if at.verb in ("pause", "resume") else "a queue or an event"
    listed = f" (there are: {', '.join(names)})" if names[1:] else ""
    return f"{at.path} needs the name of {what}", at.line(*words, after=listed)


def _names(at: Wrong, file: str | Path) -> list[str]:
    """Return the names in a pipeline that a command takes."""
    return names_in(file, *_NAMED.get(at.verb or "", ()))


def _placeholders(at: Wrong) -> list[str]:
    """Return words for what is missing, from the first one on."""
    option, required = at.own.get(at.name), [item for item in at.command.params if item.required]
    if option is not None:
        return [at.name, example(at.context, option)]
    return [item.make_metavar(at.context) for item in required[required.index(at.error.param) :]]


_MISSING: Rules = {
    "a path": _missing_path,
    "a name": _missing_name,
    "the second of two versions": lambda at: (
        at.verb == "diff"
        and at.context.params.get("old")
        and (f"{at.path} needs two paths", f"for the last commit, write: {from_git('HEAD', at.context.params['old'])}")
    ),
    "another argument": lambda at: at.line(*_placeholders(at)),
}


def _payload_in_pieces(at: Wrong) -> Any:
    from runner.cli.payloads import is_json, json_meant

    words, pieces = at.words, re.compile(r"[{\[]|[\w\"']+[:=]")
    taken = {
        index for index, item in enumerate(words, 1) if item in at.own and not getattr(at.own[item], "is_flag", False)
    }
    likely = (index for index, item in enumerate(words) if index not in taken and "://" not in item)
    start = next((index for index in likely if pieces.match(words[index])), None)
    if start is None or "payload" not in at.parameters:
        return None
    end = next((index for index, item in enumerate(words) if index > start and item[:2] == "--"), len(words))
    payload = " ".join(words[start:end])
    if all(map(is_json, words[start:end])):
        line = Rewrite([*words[:start], "--lines", *words[end:]], "write each on a line of a file, and", " < FILE")
        return "there are several payloads", str(line)
    hint: Help = "write it in single quotes, in one piece: the shell has split it and removed its double quotes"
    if meant := json_meant(payload):
        hint = Rewrite([*words[:start], meant, *words[end:]], "write it in single quotes")
    return f"the payload {payload} is in several pieces", hint


def _several_names(at: Wrong) -> Any:
    """Return the command line of `tap` with a pattern for several events."""
    given = at.words[at.start + 1 :]
    count = next((index for index, item in enumerate(given) if item[:1] == "-"), len(given))
    first = {item.partition(".")[0] for item in given[:count]}
    if at.verb != "tap" or count < 2 or len(first) != 1 or not all("." in item for item in given[:count]):
        return None
    line = Rewrite([*at.words[: at.start + 1], f"{first.pop()}.*", *given[count:]])
    return f"{at.path} takes one name, or a pattern for several", line


_TOO_MUCH: Rules = {
    "names of arguments": lambda at: (
        "payload" in at.parameters and any(map(NAMED.match, at.words)) and without_names(at.path, at.words)
    ),
    "several names": _several_names,
    "a schema of payloads": lambda at: (
        at.verb == "schema"
        and any(map(is_pipeline, at.words))
        and (
            f"{at.path} takes no path: it prints the schema of pipeline files",
            Rewrite(["export", "asyncapi", *filter(is_pipeline, at.words)], "for the schemas of payloads, write"),
        )
    ),
    "a payload in pieces": _payload_in_pieces,
    "another value of an option": lambda at: (
        (option := at.own.get(at.last.partition("=")[0] if "=" in at.last else at.option))
        and option.multiple
        and option.metavar in ("ID", "NAME")
        and at.line(option.opts[0], at.name)
    ),
    "the rest of a value": lambda at: (
        at.last[:2] == "--"
        and "=" in at.last
        and (f"the value of {at.last.partition('=')[0]} is in several pieces", at.joined(" "))
    ),
    "the value of a setting": lambda at: (
        at.name and at.option == "--set" and (f"--set {at.last} needs a value", at.joined("="))
    ),
    "a reason without its option": lambda at: (
        at.name and "--reason" in at.own and "--reason" not in at.words and at.line(end=["--reason", at.name])
    ),
    "a file for the output": lambda at: (
        "--output" in at.own and at.name.endswith(".json") and at.line("--output", at.name)
    ),
    "no arguments": lambda at: (
        at.name
        and {*at.parameters} == {item.name for item in at.own.values()}
        and (f"{at.path} takes no path or name", at.line(before=LEFT_OUT))
    ),
    "one path": lambda at: (
        at.verb == "config"
        and len(files := [*filter(is_pipeline, at.words)]) == 1
        and (f"{at.path} takes one path", Rewrite([*at.words[: at.start], *files], LEFT_OUT))
    ),
    "one folder": lambda at: (
        at.verb == "init" and (f"{at.path} takes one folder", Rewrite(["init", at.words[-1]], LEFT_OUT))
    ),
    "usage": lambda at: f"its usage: {' '.join([at.path, *at.command.collect_usage_pieces(at.context)])}",
}


# All kinds


_ANY: Rules = {
    "help as an argument": lambda at: (
        at.words[at.start :] == ["help"]
        and (f'{at.path} has no argument "help"', Rewrite([*at.words[: at.start], "--help"]))
    ),
    "a setting in pieces": lambda at: (
        joined(at.words) != at.words
        and ("the value of --set is in several pieces", Rewrite(joined(at.words), "write it in quotes"))
    ),
}
_FLAGS: Rules = {
    "no, to a flag": lambda at: at.value.lower() in ("false", "no", "off", "0") and at.line(),
    "a value of a flag": lambda at: at.line(*flag_with(at.name, at.value)),
}
_MISPLACED: Rules = {"a word in the place of another one": lambda at: at.error.answer}

_KINDS: tuple[tuple[type[click.UsageError], str, str, Rules], ...] = (
    (click.UsageError, "", "", _ANY),
    (click.UsageError, "^No such command '(.*?)'", '"{path}" has no command "{name}"', _COMMANDS),
    (click.NoSuchOption, "", '"{path}" has no option {name}', _OPTIONS),
    (WrongPath, "", "", _MISPLACED),
    (click.MissingParameter, "", "{path} needs {name}", _MISSING),
    (click.BadParameter, "", "", VALUES),
    (click.BadOptionUsage, "requires an argument", "{name} needs a value", NO_VALUE),
    (click.BadOptionUsage, "does not take a value", "option '{name}' does not take a value", _FLAGS),
    (click.UsageError, r"unexpected extra argument.*\((.*)\)$", "{path} has more arguments than it takes", _TOO_MUCH),
)
"""The class of an error and what its message has, which may name the wrong word; what is said; and the rules for it."""
