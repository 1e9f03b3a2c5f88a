"""Explains wrong usage of the command line: what is wrong, and which command line is meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
from click.core import ParameterSource

from runner.cli.misplaced import (
    READS,
    file_with,
    from_git,
    is_pipeline,
    list_folder,
    names_in,
    pipelines_here,
    with_path,
)
from runner.cli.options import BadValue
from runner.cli.rewrite import LEFT_OUT, Help, Rewrite, WrongPath, flag_with, joined, words_meant
from runner.config.messages import closest
from runner.redaction import mask_passwords

_OUTPUT = ("-o", "-O", "--output", "--out", "--output-file", "--out-file", "--outfile", "--save")
_ARGUMENTS = {
    "PATH": {"path", "paths"},
    "NAME": {"name", "queue", "queues"},
    "PAYLOAD": {"payload"},
    "DIR": {"folder"},
    "CODE": {"code"},
}
_PAYLOADS = {"publish": ['{"id": 1}'], "call": ['{"id": 1}']}
_NAMED = {"pause": ("subscribers",), "resume": ("subscribers",), "tap": ("events", "queues")}
_DRY = ("--dry-run", "--check", "--plan", "--simulate", "--diff")

_SELECTS = {"--yes", "--body"}
"""Options of commands that change many messages: an option that is not known may be a filter, and is not left out."""

_MAX_NAMED = 3
"""The most commands that are named as those with an option."""

_MAX_STEPS = 8
"""How many mistakes of one command line are mended together."""


def explain_usage(error: click.UsageError, arguments: Sequence[str]) -> tuple[str, str]:
    """Return the message and the help for wrong usage. `arguments` are those of the command line.

    A command line in the help has no second mistake that is known: it can be run as it stands.
    """
    message, help_ = _explain(error, list(arguments))
    for _ in range(_MAX_STEPS):
        if not isinstance(help_, Rewrite) or (next_error := _error_of(help_.words)) is None:
            break
        further = _explain(next_error, help_.words)[1]
        if not isinstance(further, Rewrite):
            is_new = further and not help_.after and " --help` has " not in further
            help_ = replace(help_, after=f"; then {further}") if is_new else help_
            break
        help_ = replace(
            further, before=LEFT_OUT if further.before == LEFT_OUT else help_.before, after=help_.after or further.after
        )
    return message, str(_with_tests(help_) if isinstance(help_, Rewrite) else help_)


def _with_tests(line: Rewrite) -> Rewrite:
    """Return a command line of `runner test` with the tests of a pipeline in place of the pipeline."""
    if line.words[:1] != ["test"]:
        return line
    from runner.config.suite_loader import tests_beside

    tests = {word: tests_beside(Path(word))[:3] for word in line.words if is_pipeline(word) and Path(word).is_file()}
    return replace(line, words=[each for word in line.words for each in tests.get(word) or [word]])


def _error_of(words: Sequence[str]) -> click.UsageError | None:
    """Return what is wrong with a command line, None if it can be run. No command runs."""
    if {"-h", "--help", "--version"} & set(words) or words[:1] == ["help"]:
        return None
    context, rest = click.Context(_root(), info_name="runner"), list(words)
    try:
        while rest and isinstance(context.command, click.Group):
            name, command, rest = context.command.resolve_command(context, rest)
            context = click.Context(command or context.command, info_name=name, parent=context)
        context.command.parse_args(context, rest)
    except click.UsageError as error:
        return error
    return None


def _explain(error: click.UsageError, arguments: list[str]) -> tuple[str, Help]:
    context = error.ctx or _context_of(arguments)
    if arguments[-1:] == ["help"] and len(arguments) == len(context.command_path.split()):
        return f'{context.command_path} has no argument "help"', Rewrite([*arguments[:-1], "--help"])
    if (whole := joined(arguments)) != arguments:
        return "the value of --set is in several pieces", Rewrite(whole, "write it in quotes")
    unknown = re.match(r"No such command '(.*?)'", error.message)
    if unknown is not None and isinstance(context.command, click.Group):
        return _unknown_command(context, context.command, unknown[1], arguments)
    if isinstance(error, click.NoSuchOption):
        return _unknown_option(context, error.option_name, arguments)
    if isinstance(error, WrongPath):
        return error.message, with_path(context, error.path, arguments)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return _missing(context, error.param, arguments)
    if isinstance(error, BadValue) and error.by is not None:
        return _bad_value(context, error, arguments)[0], _exchanged(arguments, error)
    if isinstance(error, click.BadParameter):
        return _bad_value(context, error, arguments)
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        found = next((item for item in context.command.params if error.option_name in item.opts), None)
        names = [each for item in arguments if is_pipeline(item) for each in names_in(item, "queues")]
        example = next(iter(names), "NAME") if error.option_name == "--recreate" else _example(context, found)
        return f"{error.option_name} needs a value", f"write {error.option_name} {example}"
    if isinstance(error, click.BadOptionUsage) and "does not take a value" in error.message:
        before, value, after, _ = _around(arguments, error.option_name)
        flag = [] if value.lower() in ("false", "no", "off", "0") else flag_with(error.option_name, value)
        return _sentence(error.message), Rewrite([*before, *flag, *after])
    if "unexpected extra argument" in error.message:
        return _too_much(context, arguments, error.message)
    hint = getattr(error, "hint", "") or f"`{context.command_path} --help` has the options and examples"
    return _sentence(error.message), hint


def _exchanged(arguments: list[str], error: BadValue) -> Rewrite:
    """Return the command line with the words that a value should be; options also take the place of its option."""
    option, by = str(error.param_hint), [*(error.by or ())]
    both = (error.word, f"{option}={error.word}")
    start = next((index for index, item in enumerate(arguments) if item in both), len(arguments))
    is_option = by[:1] != [] and by[0][:2] == "--" and arguments[start - 1 : start] == [option]
    return Rewrite([*arguments[: start - is_option], *by, *arguments[start + 1 :]], error.hint, error.after)


def _context_of(arguments: Sequence[str]) -> click.Context:
    """Return the context of the command that is named: the parser of click raises some errors without one."""
    context = click.Context(_root(), info_name="runner")
    for item in arguments:
        command = context.command.get_command(context, item) if isinstance(context.command, click.Group) else None
        if command is not None:
            context = click.Context(command, info_name=item, parent=context)
    return context


def _root() -> click.Group:
    from runner.cli import cli

    return cli


def _sentence(message: str) -> str:
    text = message.strip().removesuffix(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


# Commands


def _unknown_command(context: click.Context, group: click.Group, name: str, arguments: list[str]) -> tuple[str, Help]:
    known, path = group.list_commands(context), context.command_path
    start = arguments.index(name) if name in arguments else len(arguments)
    before, after = arguments[:start], arguments[start + 1 :]
    if Path(name).exists() or name.endswith((".yaml", ".yml")):
        what = f'"{name}" is a {"folder" if Path(name).is_dir() else "file"}, not a command'
        verb = next((item for item in after if "." not in item and _command_meant(item, known)), "")
        rest = [name, *(item for item in after if item != verb)]
        if not verb and path == "runner export":
            return what, f"write a command before it: {', '.join(known)}"
        if path == "runner import":  # the file of messages comes before the pipeline
            rest = sorted(rest, key=is_pipeline) if any(item[:1] != "-" for item in rest[1:]) else ["FILE", *rest]
        default = next(item for item in ("up", "list", known[0]) if item in known)
        return what, Rewrite([*before, *(_command_meant(verb, known) if verb else [default]), *rest])
    message = f'"{path}" has no command "{name}"'
    if path == "runner import" and "." in name and any(map(is_pipeline, after)):
        return f'"{name}" is a file, not a command', Rewrite([*before, "messages", name, *after])
    if meant := _command_meant(name, known):
        return message, Rewrite([*before, *meant, *after])
    for meant_, words, help_ in words_meant("command"):
        if meant_ == "-" and context.parent is None and name.lower() in words:
            return message, _filled(help_, after)
    return message, f"write one of: {', '.join(known)}"


def _filled(help_: str, given: list[str]) -> str:
    """Return a help of `usage.txt` with the user's own words: PATH, all names, and the first NAME."""
    plain = [item for item in given if item[:1] != "-"]
    path = next(iter([*filter(is_pipeline, plain), *pipelines_here()]), "PATH")
    names = [shlex.quote(item) for item in plain if item != path]
    words = {
        " NAMES": "".join(f" {name}" for name in names),
        "NAME": next(iter(names), "NAME"),
        "PATH": shlex.quote(path),
        "SHELL": next((item for item in plain if item in ("zsh", "fish")), "bash"),
    }
    return re.sub("|".join(words), lambda found: words[found[0]], help_)


def _command_meant(name: str, known: Sequence[str]) -> list[str]:
    """Return the command, in words, that a word of another program means, or a misspelt one; empty if none."""
    word = name.lower()
    if word in known:
        return [word]
    for meant, words, _ in words_meant("command"):
        if word in words:
            if meant == "-":
                return []
            if meant.split()[0] in known:
                return meant.split()
    near = closest(word, known, likeness=0.7)
    return [near] if near else []


# Options


def _unknown_option(context: click.Context, name: str, arguments: list[str]) -> tuple[str, Help]:
    command, path = context.command, context.command_path
    message = f'"{path}" has no option {name}'
    own = [option for item in command.params if isinstance(item, click.Option) for option in item.opts]
    if isinstance(command, click.Group):
        return message, _option_of_group(context, command, name, arguments)
    before, value, after, _ = _around(arguments, name)
    if name in ("-e", "--env") and re.match(r"[A-Za-z_]\w*=", value):
        return message, f"write the variable before the command: {_with_variable(value, [*before, *after])}"
    if name in _OUTPUT and "--output" not in own and (written := _into_file(context, arguments, name)):
        return message, written
    if help_ := _option_meant(context, name, own, arguments):
        return message, help_
    if name.startswith("--no-") and f"--{name[5:]}" in own:
        return message, Rewrite([item for item in arguments if item.partition("=")[0] != name], LEFT_OUT)
    parts = (each for each in own if name.startswith(f"{each}-") or (len(name) > 3 and each.startswith(name)))
    ends = (each for each in own if each.endswith(name[1:]))
    if near := next(parts, None) or closest(name, own, likeness=0.75) or next(ends, None):
        return message, Rewrite([re.sub(rf"^{re.escape(name)}(?=$|=)", near, item) for item in arguments])
    others = [] if _SELECTS & {*own} else _commands_with(name)
    if 0 < len(others) <= _MAX_NAMED:
        named = " and ".join(f"`runner {other}`" for other in others)
        reason = f"; only {named} {'have' if others[1:] else 'has'} it"
        return message, replace(_left_out(name, arguments), after=reason)
    options = ", ".join(option for option in own if option.startswith("--"))
    leave = "" if _SELECTS & {*own} else "; or leave it out"
    return message, f"write one of: {options}{leave}" if options else str(_left_out(name, arguments))


def _commands_with(option: str) -> list[str]:
    """Return the commands that have an option."""
    context = click.Context(_root(), info_name="runner")
    found = ((name, _root().get_command(context, name)) for name in _root().list_commands(context))
    return [name for name, item in found if item is not None and any(option in each.opts for each in item.params)]


def _option_of_group(context: click.Context, group: click.Group, name: str, arguments: list[str]) -> Help:
    """Return the help for an option before the command."""
    if context.parent is None and name in ("-V", "-v") and len(arguments) == 1:
        return Rewrite(["--version"])
    if name in ("--install-completion", "--show-completion"):
        return _unknown_command(context, group, "completion", [*arguments, "completion"])[1]
    if closest(name, ["--help"], likeness=0.7):
        return f"write: {context.command_path} --help"
    known = group.list_commands(context)
    start = next((index for index, item in enumerate(arguments) if item.partition("=")[0] == name), 0)
    for index, item in enumerate(arguments[start + 1 :], start + 1):
        if item[:1] != "-" and (meant := _command_meant(item, known)):
            return Rewrite([*arguments[:start], *meant, *arguments[start:index], *arguments[index + 1 :]])
    return (
        f"options come after the command, as in `{context.command_path} {'up' if 'up' in known else known[0]} {name} …`"
    )


def _option_meant(context: click.Context, name: str, own: list[str], arguments: list[str]) -> Help:
    """Return the help for an option of another program, "" if it is not known."""
    parameters = {item.name for item in context.command.params}
    before, value, after, kept = _around(arguments, name)
    help_: Help = ""
    if name == "-f" and "--overlay" in own and before[-1:] and before[-1].endswith((".yaml", ".yml")):
        return Rewrite([*before, "--overlay", value, *after])
    if name in _DRY and context.info_name in ("up", "apply"):
        return Rewrite(["plan", *before[1:], *kept, *after])
    for meant, words, remark in words_meant("option"):
        first = meant.partition(" ")[0]
        if first == "PAYLOADS" and "payload" not in parameters:
            continue
        if name not in (*words, first):
            continue
        if first in _ARGUMENTS and _ARGUMENTS[first] & parameters:
            return Rewrite(_placed(context, first, before, value, after), "write the value without an option")
        if first == "CONCURRENCY" and context.info_name in ("up", "dev") and value.isdecimal():
            return _concurrency([*before, *after], value)
        if first == "--workers" and first in own:
            count = re.search(r"\d+$", value)
            return Rewrite([*before, *after, first, count[0] if count else "N"])
        if first == "--overlay" and "=" in value:
            continue
        if first == "--http" and "--broker" in before and name == "--port":
            return (
                f"for the broker, write it in the URL: --broker amqp://HOST:{value}; for HTTP, --http 127.0.0.1:{value}"
            )
        if meant == "--json" and meant in own and value:
            is_json = "json" in value.lower()
            return Rewrite([*before, *([meant] if is_json else []), *after], "write" if is_json else LEFT_OUT)
        if first in own:
            value = re.sub(r"^:?(\d+)$", r"127.0.0.1:\1", value) if first == "--http" else value
            value = f"{value}.yaml" if first == "--overlay" and not Path(value).suffix else value
            words = f"{meant}{value}".split() if meant.endswith("=") else [*meant.split(), *([value] if value else [])]
            return Rewrite([*before, *words, *after])
        left = _left_out(name, arguments)
        if remark.startswith(LEFT_OUT) or (name in _DRY and context.info_name in READS):
            return _without(left, "" if name in _DRY else remark.removeprefix(LEFT_OUT))
        help_ = remark or help_ or ("" if _SELECTS & {*own} else left)
    return help_


def _without(left: Rewrite, remark: str) -> Rewrite:
    """Return the command line without an option, and why; also without `--fix`, if it was the option to only look."""
    if "--fix" in left.words and not remark:
        return Rewrite([item for item in left.words if item != "--fix"], "to look, and write nothing")
    return replace(left, after=f";{remark[1:]}" if remark[:1] == ":" else remark)


def _left_out(name: str, arguments: list[str]) -> Rewrite:
    """Return the command line without an option, and without its value unless that is an argument."""
    before, value, after, kept = _around(arguments, name)
    is_argument = is_pipeline(value) or value[:1] in ("{", "[") or ("://" not in value and _error_of([*before, *after]))
    return Rewrite([*before, *(kept if is_argument else []), *after], LEFT_OUT)


def _concurrency(rest: list[str], value: str) -> Rewrite:
    """Return the settings that let each subscriber handle several messages at once."""
    files = [item for item in rest[1:] if os.path.exists(item)] or pipelines_here()[:1]
    only = [each for item, each in pairwise(["", *rest]) if item == "--only"]
    only += [item.partition("=")[2] for item in rest if item.startswith("--only=")]
    known = [each for file in files for each in names_in(file, "subscribers")]
    names = [each for each in known if each in only] or known or ["NAME"]
    settings = [part for each in names for part in ("--set", f"subscribers.{each}.concurrency={value}")]
    return Rewrite([*rest, *settings], "for each process, write", f"; for {value} processes, write --workers {value}")


def _into_file(context: click.Context, arguments: list[str], name: str) -> Rewrite | None:
    """Return the command line that writes its output to the file that an option names, None if it names no file."""
    before, file, after, _ = _around(arguments, name)
    if "." not in file:
        return None
    words = [*before, *after]
    formats = next((item.type for item in context.command.params if "--format" in item.opts), None)
    choices, (stem, _, suffix) = getattr(formats, "choices", ()), file.rpartition(".")
    meant = _choice_of(suffix, choices)
    if suffix == "json" and not choices and any("--json" in item.opts for item in context.command.params):
        words += [] if "--json" in words else ["--json"]
    if meant and "--format" not in words:
        words += ["--format", meant]
        file = f"{stem}.{meant}" if meant == "svg" else file
    return Rewrite(words, after=f" > {shlex.quote(file)}")


def _choice_of(value: str, choices: Sequence[str]) -> str:
    """Return the choice that a value is, or means in other programs; "" if none."""
    word = value.lower()
    known = (meant for meant, words, _ in words_meant("value") if word in words and meant in choices)
    return word if word in choices else next(known, "")


def _around(arguments: Sequence[str], name: str) -> tuple[list[str], str, list[str], list[str]]:
    """Return what stands before an option, its value, and what stands after it.

    The last item is the value again, as a list, if it may be an argument that only follows a flag.
    """
    index = next((index for index, item in enumerate(arguments) if item.partition("=")[0] == name), -1)
    if index < 0:  # it is one of several letters after one dash, or has its value right behind it
        index = next((i for i, item in enumerate(arguments) if re.match(rf"-\w*{name[-1]}", item)), len(arguments))
        first, _, last = "".join(arguments[index : index + 1]).partition(name[-1])
        letters = first + (last.replace(name[-1], "") if last.isalpha() else "")
        before = [*arguments[:index], *([letters] if len(letters) > 1 else [])]
        return before, "" if last.isalpha() else last, list(arguments[index + 1 :]), []
    before, after = list(arguments[:index]), list(arguments[index + 1 :])
    if "=" in arguments[index]:
        return before, arguments[index].partition("=")[2], after, []
    if after and after[0][:1] != "-":
        return before, after[0], after[1:], after[:1]
    return before, "", after, []


def _placed(context: click.Context, where: str, before: list[str], value: str, after: list[str]) -> list[str]:
    """Return the command line with a value as the argument PATH, NAME or PAYLOAD."""
    start = len(context.command_path.split()) - 1
    if where == "PATH" and not os.path.exists(value) and is_pipeline(f"{value}.yaml"):
        value = f"{value}.yaml"
    if where == "PATH" and not is_pipeline(value) and any(item.name == "payload" for item in context.command.params):
        where, value = "PAYLOAD", f"@{value}"
    if where == "PAYLOAD":
        return [*before, *after, value]
    rest = [*before, *after]
    start += where == "NAME" and any(is_pipeline(item) for item in rest)
    return [*rest[:start], value, *rest[start:]]


# Values


def _missing(context: click.Context, parameter: click.Parameter, arguments: list[str]) -> tuple[str, Help]:
    path = context.command_path
    if isinstance(parameter, click.Option):
        return f"{path} needs {parameter.opts[0]}", f"add {parameter.opts[0]} {_example(context, parameter)}"
    required = [item for item in context.command.params if item.required]
    if parameter.name in ("path", "paths"):
        found = ["."] if context.info_name == "test" else pipelines_here()
        if not found:
            return (
                f"{path} needs the path of a pipeline",
                f"{Rewrite([*arguments, 'PATH'])}; `runner init` starts a project",
            )
        more = f" (there are also {', '.join(found[1:4])})" if found[1:] else ""
        words = [*arguments, found[0]]
        if any(item.name == "name" for item in required):
            names = names_in(found[0], *_NAMED.get(context.info_name or "", ()))
            words += [next(iter(names), "NAME"), *_PAYLOADS.get(context.info_name or "", [])]
        return f"{path} needs the path of a pipeline", Rewrite(words, after=more)
    if parameter.name == "name":
        file = context.params.get("path")
        names = names_in(file, *_NAMED.get(context.info_name or "", ())) if file else []
        if file and not os.path.exists(file):
            start = len(path.split()) - 1
            here = file_with(str(file)) or next(iter(pipelines_here()), "PATH")
            rewritten = Rewrite([*arguments[:start], here, *arguments[start:]])
            return f"{path} needs the path of a pipeline before the name", rewritten
        listed = f" (there are: {', '.join(names)})" if names[1:] else ""
        words = [*arguments, *(names[:1] or ["NAME"]), *_PAYLOADS.get(context.info_name or "", [])]
        what = "a subscriber" if context.info_name in ("pause", "resume") else "a queue or an event"
        return f"{path} needs the name of {what}", Rewrite(words, after=listed)
    if context.info_name == "diff" and (old := context.params.get("old")):
        return f"{path} needs two paths", f"for the last commit, write: {from_git('HEAD', old)}"
    left = [item.make_metavar(context) for item in required[required.index(parameter) :]]
    return f"{path} needs {left[0]}", Rewrite([*arguments, *left])


def _bad_value(context: click.Context, error: click.BadParameter, arguments: list[str]) -> tuple[str, str]:
    """Return the words for a value that an option does not take: with the variable, if it comes from one."""
    parameter = error.param
    label, hint = str(error.param_hint or ""), str(getattr(error, "hint", ""))
    if parameter is not None and not label:
        label = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(context)
        if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
            variables = parameter.envvar or f"{context.auto_envvar_prefix}_{(parameter.name or '').upper()}"
            label = variables if isinstance(variables, str) else variables[0]
    message = _sentence(error.message)
    kind = parameter.type if parameter is not None else None
    if isinstance(kind, click.Choice) and " is not one of " in message:
        value = message.partition(" is not one of ")[0].strip("'\"")
        choices = [str(each) for each in kind.choices]
        guess = _choice_of(value, choices) or closest(value, choices)
        message = f'"{value}" is not a value of it'
        hint = f'did you mean "{guess}"?' if guess else f"write one of: {', '.join(choices)}"
    elif " does not exist" in message and (name := re.search(r"'(.+)'", message)):
        folder, base = os.path.split(name[1])
        near = [each for each in list_folder(folder or ".") if base[:1] == "." and base.startswith(f"{each}.")]
        guess = closest(base, list_folder(folder or "."), likeness=0.75) or next(iter(near), "")
        message = f'there is no file "{name[1]}"'
        hint = f'did you mean "{os.path.join(folder, guess)}"?' if guess else "correct the path"
        if re.match(r"[A-Za-z_]\w*=", name[1]):
            before, _, after, _ = _around(arguments, label)
            hint = f"write the variable before the command: {_with_variable(name[1], [*before, *after])}"
    elif message.endswith(" is a directory") and (name := re.search(r"'(.+)'", message)):
        message, hint = f'"{name[1]}" is a folder', f"write the name of a file in it: {os.path.join(name[1], 'NAME')}"
    elif isinstance(kind, _Number):
        message, hint = _wrong_number(label, kind, parameter, message.split(" ")[0].strip("'"))
    elif not hint and message.startswith("write "):
        message, hint = "cannot be read", message
    return f"{label}: {message}" if label else message, hint


def _with_variable(variable: str, words: Sequence[str]) -> str:
    return f"{shlex.quote(mask_passwords(variable))} runner {shlex.join(words)}"


_Number = click.types.IntParamType | click.types.FloatParamType


def _wrong_number(label: str, kind: _Number, parameter: click.Parameter | None, value: str) -> tuple[str, str]:
    """Return the words for a value that is not the number of an option."""
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    what = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
    limits = f" from {least:g}" if least is not None else ""
    limits += f" to {most:g}" if most is not None else " on" if limits else ""
    sign = " " if label[:1] == "-" else "="
    hint = f"write {label}{sign}{max(least or 1, 1):g} or more"
    if number := re.fullmatch(r"(\d+)\D+", value):
        hint = f"write {label}{sign}{number[1]}"
    elif value in ("auto", "max", "cpus", "cores") and label == "--workers":
        hint = "write --workers $(nproc) for one on each core"
    elif value in ("all", "none", "unlimited", "0") and not isinstance(getattr(parameter, "default", None), int):
        hint = f"leave {label} out"
    return f"must be {what}{limits}, not {value}", hint


def _too_much(context: click.Context, arguments: list[str], message: str) -> tuple[str, Help]:
    path = context.command_path
    if context.info_name in ("publish", "call"):
        from runner.cli.payloads import is_json, json_meant

        pieces = re.compile(r"[{\[]|[\w\"']+[:=]")
        start = next((index for index, item in enumerate(arguments) if pieces.match(item) and "://" not in item), None)
        if start is not None:
            end = next((i for i, item in enumerate(arguments) if i > start and item[:2] == "--"), len(arguments))
            payload = " ".join(arguments[start:end])
            hint: Help = "write it in single quotes, in one piece: the shell has split it and removed its double quotes"
            if all(map(is_json, arguments[start:end])):
                line = Rewrite([*arguments[:start], "--lines", *arguments[end:]], "write each on a line of a file, and")
                return "there are several payloads", f"{line} < FILE"
            if meant := json_meant(payload):
                hint = Rewrite([*arguments[:start], meant, *arguments[end:]], "write it in single quotes")
            return f"the payload {payload} is in several pieces", hint
    files, first = [item for item in arguments if is_pipeline(item)], len(path.split()) - 1
    extra = next(_extra(message, arguments), [])
    start = next((i for i in range(len(arguments)) if arguments[i : i + len(extra)] == extra), first)
    text, before = " ".join(extra), arguments[start - 1]
    names = {option for item in context.command.params for option in item.opts}
    rest = [*arguments[:start], *arguments[start + len(extra) :]]
    if extra and before[:2] == "--" and "=" in before:
        rest[start - 1] += f" {text}"
        return f"the value of {before.partition('=')[0]} is in several pieces", Rewrite(rest)
    if extra and arguments[start - 2] == "--set" and before[:1] != "-":
        rest[start - 1] += f"={text}"
        return f"--set {before} needs a value", Rewrite(rest)
    if extra and "--reason" in names and "--reason" not in arguments:
        return f"{path} has more arguments than it takes", Rewrite([*rest, "--reason", text])
    if extra and not any(isinstance(item, click.Argument) for item in context.command.params):
        return f"{path} takes no path or name", Rewrite(rest, LEFT_OUT)
    if context.info_name == "config" and len(files) == 1:
        return f"{path} takes one path", Rewrite([*arguments[:first], *files], LEFT_OUT)
    if context.info_name == "init":
        return f"{path} takes one folder", Rewrite(["init", arguments[-1]], LEFT_OUT)
    usage = " ".join([path, *context.command.collect_usage_pieces(context)])
    return f"{path} has more arguments than it takes", f"its usage: {usage}"


def _extra(message: str, arguments: list[str]) -> Iterator[list[str]]:
    """Yield the words that click names as too much, if they stand together on the command line."""
    found = re.search(r"\((.*)\)$", message)
    for start in range(len(arguments)):
        for end in range(start + 1, len(arguments) + 1):
            if found and " ".join(arguments[start:end]) == found[1]:
                yield arguments[start:end]


def _example(context: click.Context, parameter: click.Parameter | None) -> str:
    if parameter is None:
        return "VALUE"
    if isinstance(parameter.type, click.Choice):
        return str(next(iter(parameter.type.choices)))
    return parameter.make_metavar(context)
