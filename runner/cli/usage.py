"""Explains wrong usage of the command line: what is wrong, and which command line is meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from click.core import ParameterSource

from runner.cli.options import BadValue
from runner.config.messages import closest
from runner.redaction import mask_passwords
from runner.tables import read_table

_OUTPUT = ("-o", "-O", "--output", "--out", "--output-file", "--out-file", "--outfile", "--save")
_ARGUMENTS = {"PATH": {"path", "paths"}, "NAME": {"name", "queue", "queues"}, "PAYLOAD": {"payload"}}
_PAYLOADS = {"publish": ['{"id": 1}'], "call": ['{"id": 1}']}
_NAMED = {"pause": ("subscribers",), "resume": ("subscribers",), "tap": ("events", "queues")}
_SECTIONS = ("queues", "events", "subscribers", "producers")
_DRY = ("--dry-run", "--check", "--plan", "--simulate", "--diff")
_READS = ("validate", "config", "graph", "diff", "plan", "status", "explain", "schema", "test")
"""Commands that change nothing: what they cannot read can be left out."""

_MAX_STEPS = 8
"""How many mistakes of one command line are mended together."""


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


def _words(kind: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield the rows of `usage.txt` for commands or options: what is meant, the words for it, and a help."""
    for row, meant, words, help_ in read_table("runner.cli", "usage.txt", 4):
        if row == kind:
            yield meant, words.split(), help_


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
        help_ = replace(further, before=help_.before, after=help_.after or further.after)
    return message, str(help_)


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
    unknown = re.match(r"No such command '(.*?)'", error.message)
    if unknown is not None and isinstance(context.command, click.Group):
        return _unknown_command(context, context.command, unknown[1], arguments)
    if isinstance(error, click.NoSuchOption):
        return _unknown_option(context, error.option_name, arguments)
    if isinstance(error, WrongPath):
        return error.message, _with_path(context, error.path, arguments)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return _missing(context, error.param, arguments)
    if isinstance(error, BadValue) and error.by is not None:
        return _bad_value(context, error)[0], _exchanged(arguments, error)
    if isinstance(error, click.BadParameter):
        return _bad_value(context, error)
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        found = next((item for item in context.command.params if error.option_name in item.opts), None)
        return f"{error.option_name} needs a value", f"write {error.option_name} {_example(context, found)}"
    if isinstance(error, click.BadOptionUsage) and "does not take a value" in error.message:
        before, value, after, _ = _around(arguments, error.option_name)
        flag = [] if value.lower() in ("false", "no", "off", "0") else [error.option_name]
        return _sentence(error.message), Rewrite([*before, *flag, *after])
    if "unexpected extra argument" in error.message:
        return _too_much(context, arguments)
    hint = getattr(error, "hint", "") or f"`{context.command_path} --help` has the options and examples"
    return _sentence(error.message), hint


def _exchanged(arguments: list[str], error: BadValue) -> Rewrite:
    """Return the command line with the words that a value should be."""
    start = arguments.index(error.word) if error.word in arguments else len(arguments)
    return Rewrite([*arguments[:start], *(error.by or ()), *arguments[start + 1 :]], error.hint, error.after)


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
            rest = sorted(rest, key=_is_pipeline) if any(item[:1] != "-" for item in rest[1:]) else ["FILE", *rest]
        default = next(item for item in ("up", "list", known[0]) if item in known)
        return what, Rewrite([*before, *(_command_meant(verb, known) if verb else [default]), *rest])
    message = f'"{path}" has no command "{name}"'
    if meant := _command_meant(name, known):
        return message, Rewrite([*before, *meant, *after])
    here = shlex.quote(next(iter([*filter(_is_pipeline, after), *_pipelines_here()]), "PATH"))
    for meant_, words, help_ in _words("command"):
        if meant_ == "-" and context.parent is None and name.lower() in words:
            return message, help_.replace("PATH", here)
    return message, f"write one of: {', '.join(known)}"


def _command_meant(name: str, known: Sequence[str]) -> list[str]:
    """Return the command, in words, that a word of another program means, or a misspelt one; empty if none."""
    word = name.lower()
    if word in known:
        return [word]
    for meant, words, _ in _words("command"):
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
    if name in _OUTPUT and "--output" not in own and (written := _into_file(context, arguments, name)):
        return message, written
    if help_ := _option_meant(context, name, own, arguments):
        return message, help_
    parts = (each for each in own if name.startswith(f"{each}-") or (len(name) > 3 and each.startswith(name)))
    ends = (each for each in own if each.endswith(name[1:]))
    if near := next(parts, None) or closest(name, own, likeness=0.75) or next(ends, None):
        return message, Rewrite([re.sub(rf"^{re.escape(name)}(?=$|=)", near, item) for item in arguments])
    options = ", ".join(option for option in own if option.startswith("--"))
    return message, f"write one of: {options}; or leave it out" if options else str(_left_out(name, arguments))


def _option_of_group(context: click.Context, group: click.Group, name: str, arguments: list[str]) -> Help:
    """Return the help for an option before the command."""
    if context.parent is None and name in ("-V", "-v") and len(arguments) == 1:
        return Rewrite(["--version"])
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
    for meant, words, remark in _words("option"):
        first = meant.partition(" ")[0]
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
            return Rewrite([*before, *([meant] if "json" in value.lower() else []), *after])
        if first in own:
            value = re.sub(r"^:?(\d+)$", r"127.0.0.1:\1", value) if first == "--http" else value
            value = f"{value}.yaml" if first == "--overlay" and not Path(value).suffix else value
            words = f"{meant}{value}".split() if meant.endswith("=") else [*meant.split(), *([value] if value else [])]
            return Rewrite([*before, *words, *after])
        left = _left_out(name, arguments)
        if remark.startswith("leave it out") or (name in _DRY and context.info_name in _READS):
            remark = "leave it out" if name in _DRY else remark
            return replace(left, after=remark.removeprefix("leave it out"))
        help_ = remark or help_ or left
    return help_


def _left_out(name: str, arguments: list[str]) -> Rewrite:
    """Return the command line without an option, and without its value unless that is an argument."""
    before, value, after, kept = _around(arguments, name)
    is_argument = (
        _is_pipeline(value) or value[:1] in ("{", "[") or ("://" not in value and _error_of([*before, *after]))
    )
    return Rewrite([*before, *(kept if is_argument else []), *after], "leave it out")


def _concurrency(rest: list[str], value: str) -> Rewrite:
    """Return the settings that let each subscriber handle several messages at once."""
    files = [item for item in rest[1:] if os.path.exists(item)] or _pipelines_here()[:1]
    names = [each for file in files for each in names_in(file, "subscribers")] or ["NAME"]
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
    if meant and "--format" not in words:
        words += ["--format", meant]
        file = f"{stem}.{meant}" if meant == "svg" else file
    return Rewrite(words, after=f" > {shlex.quote(file)}")


def _choice_of(value: str, choices: Sequence[str]) -> str:
    """Return the choice that a value is, or means in other programs; "" if none."""
    word = value.lower()
    known = (meant for meant, words, _ in _words("value") if word in words and meant in choices)
    return word if word in choices else next(known, "")


def _around(arguments: Sequence[str], name: str) -> tuple[list[str], str, list[str], list[str]]:
    """Return what stands before an option, its value, and what stands after it.

    The last item is the value again, as a list, if it may be an argument that only follows a flag.
    """
    index = next((index for index, item in enumerate(arguments) if item.partition("=")[0] == name), -1)
    if index < 0:  # it is one of several letters after one dash
        return list(arguments), "", [], []
    before, after = list(arguments[:index]), list(arguments[index + 1 :])
    if "=" in arguments[index]:
        return before, arguments[index].partition("=")[2], after, []
    if after and after[0][:1] != "-":
        return before, after[0], after[1:], after[:1]
    return before, "", after, []


def _placed(context: click.Context, where: str, before: list[str], value: str, after: list[str]) -> list[str]:
    """Return the command line with a value as the argument PATH, NAME or PAYLOAD."""
    start = len(context.command_path.split()) - 1
    if where == "PATH" and not os.path.exists(value) and _is_pipeline(f"{value}.yaml"):
        value = f"{value}.yaml"
    if where == "PATH" and not _is_pipeline(value) and any(item.name == "payload" for item in context.command.params):
        where, value = "PAYLOAD", f"@{value}"
    if where == "PAYLOAD":
        return [*before, *after, value]
    rest = [*before, *after]
    start += where == "NAME" and any(_is_pipeline(item) for item in rest)
    return [*rest[:start], value, *rest[start:]]


def _is_pipeline(path: str) -> bool:
    return os.path.isdir(path) or (path.endswith((".yaml", ".yml")) and os.path.exists(path))


# Paths


def check_paths(context: click.Context, arguments: Sequence[str]) -> None:
    """Raise WrongPath for a name, or a value of an option, where the path of a pipeline belongs."""
    given = context.params
    old, new = given.get("old"), given.get("new")
    if old and not old.exists() and old.suffix not in (".yaml", ".yml") and str(old)[0] not in "./~":
        way = f"git worktree add ../{old.name} {old}; runner diff ../{old.name}/{new} {new}"
        raise BadValue(f'there is no file or folder "{old}"', f"for a revision of git, write: {way}", "OLD")
    for path in given.get("paths") or filter(None, [given.get("path")]):
        text = str(path)
        if text[:1] in "–—" and not path.exists():
            raise WrongPath(f'"{text}" begins with a long dash', context, text)
        if path.exists() or path.suffix in (".yaml", ".yml"):
            continue
        if _is_value(context, text, arguments):
            raise WrongPath(f'"{text}" is not a path', context, text)
        others = [given.get("name"), given.get("queue"), *(given.get("queues") or ()), given.get("payload")]
        if any(item and _is_pipeline(item) for item in others):
            raise WrongPath(f'the path of a pipeline comes before "{text}"', context, text)
        if file := _file_with(text):
            raise WrongPath(f'"{text}" is a name in {file}, not a path', context, text)
        is_id = "ids" in given and re.fullmatch(r"[0-9a-f-]{8,}", text)
        is_noun = context.info_name in _READS and any(map(_is_pipeline, map(str, given.get("paths", ()))))
        if is_id or is_noun or "::" in text:
            raise WrongPath(f'"{text}" is not a path', context, text)


def _is_value(context: click.Context, text: str, arguments: Sequence[str]) -> bool:
    """Return whether an argument was meant as the value of a flag, or as the value after `--set KEY`."""
    flags = {option for item in context.command.params if getattr(item, "is_flag", False) for option in item.opts}
    start = arguments.index(text) if text in arguments else 0
    is_setting = start > 1 and arguments[start - 2] == "--set" and "=" not in arguments[start - 1]
    return is_setting or (start > 0 and arguments[start - 1] in flags)


def _with_path(context: click.Context, path: str, arguments: list[str]) -> Rewrite:
    """Return the command line with the path of a pipeline where a name stands."""
    if path[:1] in "–—":
        return Rewrite([f"--{item.lstrip('–—')}" if item == path else item for item in arguments])
    start = arguments.index(path)
    rest = [*arguments[:start], *arguments[start + 1 :]]
    if _is_value(context, path, arguments):
        if arguments[start - 2] == "--set":
            rest[start - 1] += f"={path}"
        return Rewrite(rest)
    if file := next((item for item in rest[start:] if _is_pipeline(item)), None):
        rest.remove(file)
        return Rewrite([*rest[:start], file, path, *rest[start:]])
    if "::" in path:
        return Rewrite([*rest[:start], path.partition("::")[0], *rest[start:], "--only", path.rpartition("::")[2]])
    file = next(filter(_is_pipeline, rest), "") or _file_with(path) or next(iter(_pipelines_here()), "PATH")
    rest = [item for item in rest if item != file]
    parameters = {item.name for item in context.command.params}
    if not _file_with(path) and "ids" in parameters:
        return Rewrite([*rest[:start], file, "--id", path, *rest[start:]])
    if parameters & {"name", "queue", "queues"} and path in names_in(file, *_SECTIONS):
        return Rewrite([*rest[:start], file, path, *rest[start:]])
    is_run = "only" in parameters and path in names_in(file, "producers", "subscribers")
    return Rewrite([*rest[:start], file, *rest[start:], *(["--only", path] if is_run else [])])


def _file_with(name: str) -> str:
    """Return the pipeline of the current folder that has this name, or a queue, event or other item of this name."""
    return next((file for file in _pipelines_here() if name in names_in(file, "name", *_SECTIONS)), "")


def _pipelines_here() -> list[str]:
    from runner.config.loader import pipelines_here

    return pipelines_here()


# Values


def _missing(context: click.Context, parameter: click.Parameter, arguments: list[str]) -> tuple[str, Help]:
    path = context.command_path
    if isinstance(parameter, click.Option):
        return f"{path} needs {parameter.opts[0]}", f"add {parameter.opts[0]} {_example(context, parameter)}"
    required = [item for item in context.command.params if item.required]
    if parameter.name in ("path", "paths"):
        found = ["."] if context.info_name == "test" else _pipelines_here()
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
            here = _file_with(str(file)) or next(iter(_pipelines_here()), "PATH")
            rewritten = Rewrite([*arguments[:start], here, *arguments[start:]])
            return f"{path} needs the path of a pipeline before the name", rewritten
        listed = f" (there are: {', '.join(names)})" if names[1:] else ""
        words = [*arguments, *(names[:1] or ["NAME"]), *_PAYLOADS.get(context.info_name or "", [])]
        what = "a subscriber" if context.info_name in ("pause", "resume") else "a queue or an event"
        return f"{path} needs the name of {what}", Rewrite(words, after=listed)
    left = [item.make_metavar(context) for item in required[required.index(parameter) :]]
    return f"{path} needs {left[0]}", Rewrite([*arguments, *left])


def _bad_value(context: click.Context, error: click.BadParameter) -> tuple[str, str]:
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
        guess = closest(os.path.basename(name[1]), _listed(os.path.dirname(name[1]) or "."), likeness=0.75)
        message = f'there is no file "{name[1]}"'
        hint = f'did you mean "{os.path.join(os.path.dirname(name[1]), guess)}"?' if guess else "correct the path"
    elif isinstance(kind, click.types.IntParamType):
        least = getattr(kind, "min", None)
        value, message = message, "must be a whole number" + (f" from {least} on" if least is not None else "")
        message += f", not {value.split(' ')[0]}"
        hint = f"write {label}{' ' if label[:1] == '-' else '='}{max(least or 1, 1)} or more"
    elif not hint and message.startswith("write "):
        message, hint = "cannot be read", message
    return f"{label}: {message}" if label else message, hint


def _too_much(context: click.Context, arguments: list[str]) -> tuple[str, Help]:
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
    files, first = [item for item in arguments if _is_pipeline(item)], len(path.split()) - 1
    if context.info_name == "config" and len(files) == 1:
        return f"{path} takes one path", Rewrite([*arguments[:first], *files])
    if context.info_name == "init":
        return f"{path} takes one folder", Rewrite(["init", arguments[-1]])
    usage = " ".join([path, *context.command.collect_usage_pieces(context)])
    return f"{path} has more arguments than it takes", f"write: {usage}"


def _example(context: click.Context, parameter: click.Parameter | None) -> str:
    if parameter is None:
        return "VALUE"
    if isinstance(parameter.type, click.Choice):
        return str(next(iter(parameter.type.choices)))
    return parameter.make_metavar(context)


# What there is


def names_in(path: str | os.PathLike[str], *sections: str) -> list[str]:
    """Return the names in some sections of a pipeline, by default its queues and events; none if it cannot be read."""
    from runner.config.loader import load_all

    try:
        files = load_all([Path(path)], dict(os.environ))
    except Exception:  # a help is never worth an error
        return []
    specs = [spec for item in files if (spec := item.spec or item.recovered) is not None]
    found: Iterable[str] = (
        name
        for spec in specs
        for section in sections or ("queues", "events")
        for name in ([spec.name or ""] if section == "name" else getattr(spec, section))
    )
    return list(dict.fromkeys(found))


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
