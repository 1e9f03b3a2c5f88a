"""Explains wrong usage of the command line: what is wrong, and which command line is meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from runner.config.messages import closest
from runner.tables import read_table

_OUTPUT = ("-o", "-O", "--output", "--out", "--output-file", "--out-file", "--outfile", "--save")
_PAYLOADS = dict.fromkeys(("publish", "call"), """ '{"id": 1}'""")
_DRY = ("--dry-run", "--check", "--plan", "--simulate", "--diff")


def _words(kind: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield the rows of `usage.txt` for commands or options: what is meant, the words for it, and a help."""
    for row, meant, words, help_ in read_table("runner.cli", "usage.txt", 4):
        if row == kind:
            yield meant, words.split(), help_


def explain_usage(error: click.UsageError, arguments: Sequence[str]) -> tuple[str, str]:
    """Return the message and the help for wrong usage. `arguments` are those of the command line."""
    context = error.ctx or _context_of(arguments)
    unknown = re.match(r"No such command '(.*?)'", error.message)
    if unknown is not None and isinstance(context.command, click.Group):
        return _unknown_command(context, context.command, unknown[1], arguments)
    if isinstance(error, click.NoSuchOption):
        return _unknown_option(context, error.option_name, arguments)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return _missing(context, error.param, arguments)
    if isinstance(error, click.BadParameter):
        return _bad_value(context, error)
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        found = next((item for item in context.command.params if error.option_name in item.opts), None)
        return f"{error.option_name} needs a value", f"write {error.option_name} {_example(context, found)}"
    if isinstance(error, click.BadOptionUsage) and "does not take a value" in error.message:
        return _sentence(error.message), f"write {error.option_name} alone, without `=` and what follows"
    if "unexpected extra argument" in error.message:
        return _too_much(context, arguments)
    return _sentence(error.message), f"`{context.command_path} --help` has the options and examples"


def _context_of(arguments: Sequence[str]) -> click.Context:
    """Return the context of the command that is named: the parser of click raises some errors without one."""
    context = click.get_current_context(silent=True) or click.Context(_root(), info_name="runner")
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


def _unknown_command(
    context: click.Context, group: click.Group, name: str, arguments: Sequence[str]
) -> tuple[str, str]:
    known, path = group.list_commands(context), context.command_path
    after = arguments[arguments.index(name) + 1 :] if name in arguments else ()
    if Path(name).exists() or name.endswith((".yaml", ".yml")):
        verb = next(item for item in (*after, "up", "list", "compose", known[0]) if item in known)
        rest = [name, *(item for item in after if item != verb)]
        what = "folder" if Path(name).is_dir() else "file"
        return f'"{name}" is a {what}, not a command', f"write: {path} {shlex.join([verb, *rest])}"
    found = (meant for meant, words, _ in _words("command") if meant.split()[0] in known and name.lower() in words)
    meant = next(found, None) or closest(name, known, likeness=0.7)
    message = f'"{path}" has no command "{name}"'
    if context.parent is None and name in ("stop", "down", "kill", "restart"):
        return message, "stop `runner up` with Ctrl-C, or send it SIGTERM"
    if meant:
        return message, f"write: {path} {shlex.join([*meant.split(), *after])}"
    return message, f"write one of: {', '.join(known)}"


# Options


def _unknown_option(context: click.Context, name: str, arguments: Sequence[str]) -> tuple[str, str]:
    command, path = context.command, context.command_path
    message = f'"{path}" has no option {name}'
    own = [option for item in command.params if isinstance(item, click.Option) for option in item.opts]
    if isinstance(command, click.Group):
        if context.parent is None and name in ("-V", "-v"):
            return message, "write: runner --version"
        if closest(name, ["--help"], likeness=0.7):
            return message, f"write: {path} --help"
        return message, f"options come after the command, as in `{path} {command.list_commands(context)[1]} {name} …`"
    has_path = any(item.name in ("path", "paths") for item in command.params)
    if name in _OUTPUT and (written := _into_file(context, arguments, name)):
        return message, f"write: runner {written}"
    left, help_ = _replaced(arguments, name, None), ""
    for meant, words, remark in _words("option"):
        if name == "-f" and "--overlay" in own and re.search(r"\.ya?ml -f", " ".join(arguments)):
            return message, f"write: runner {_replaced(arguments, name, '--overlay')}"
        if name in words and not meant and has_path:
            return message, f"write the path without an option: runner {_replaced(arguments, name, '')}"
        if name in words and meant == "--workers" and meant in own:
            count = re.search(rf"{re.escape(name)}[= ]\S*?(\d+)", " ".join(arguments))
            return message, f"write: --workers {count[1] if count else 'N'}"
        if name in words and meant.split()[:1] and meant.split()[0] in own:
            return message, f"write: runner {_replaced(arguments, name, meant)}"
        if name in (*words, meant):
            help_ = remark or help_ or f"leave it out: runner {left}"
    if near := closest(name, own, likeness=0.75) or next((option for option in own if option.endswith(name[1:])), None):
        return message, f"write: runner {_replaced(arguments, name, near)}"
    if name in _DRY and context.info_name in ("up", "apply"):
        return message, f"write: runner plan {shlex.join(shlex.split(left)[1:])}"
    options = ", ".join(option for option in own if option.startswith("--"))
    return message, help_ or f"leave it out, or write one of: {options}"


def _into_file(context: click.Context, arguments: Sequence[str], name: str) -> str:
    """Return the command line that writes its output to the file that an option names, "" if it names no file."""
    words = shlex.split(_replaced(arguments, name, name))
    if name not in words[:-1] or "." not in (file := words.pop(words.index(name) + 1)):
        return ""
    words.remove(name)
    formats = next((item.type for item in context.command.params if "--format" in item.opts), None)
    if (suffix := file.rpartition(".")[2]) in getattr(formats, "choices", ()) and "--format" not in words:
        words += ["--format", suffix]
    return f"{shlex.join(words)} > {shlex.quote(file)}"


def _replaced(arguments: Sequence[str], name: str, instead: str | None) -> str:
    """Return the command line with another option; with "" only its value is left, with None not even that."""
    found: list[str] = []
    for item in arguments:
        head, equals, value = item.partition("=")
        if head != name:
            found.append(shlex.quote(item))
        elif instead is not None:
            found += [instead] if instead else []
            found += [shlex.quote(value)] if equals else []
    return " ".join(found)


# Values


def _missing(context: click.Context, parameter: click.Parameter, arguments: Sequence[str]) -> tuple[str, str]:
    path, given = context.command_path, shlex.join(arguments)
    if isinstance(parameter, click.Option):
        return f"{path} needs {parameter.opts[0]}", f"add {parameter.opts[0]} {_example(context, parameter)}"
    from runner.config.loader import pipelines_here

    if parameter.name in ("path", "paths"):
        found = pipelines_here()
        if not found:
            return f"{path} needs the path of a pipeline", f"write: runner {given} PATH; `runner init` starts a project"
        more = f" (there are also {', '.join(found[1:4])})" if found[1:] else ""
        given = f"{given} {shlex.quote(found[0])}"
        if any(item.name == "name" and item.required for item in context.command.params):
            named = shlex.quote(next(iter(names_in(found[0])), "NAME"))
            given += f" {named}{_PAYLOADS.get(context.info_name or '', '')}"
        return f"{path} needs the path of a pipeline", f"write: runner {given}{more}"
    if parameter.name == "name":
        file = context.params.get("path")
        names = names_in(file) if file else []
        if file and not os.path.exists(file):
            here = [shlex.quote(item) for item in pipelines_here()[:1]] or ["PATH"]
            rest = shlex.join(arguments[1:])
            return f"{path} needs the path of a pipeline before the name", f"write: {path} {here[0]} {rest}"
        listed = f" (there are: {', '.join(names)})" if names[1:] else ""
        name = shlex.quote(names[0]) if names else "NAME"
        return (
            f"{path} needs the name of a queue or an event",
            f"write: runner {given} {name}{_PAYLOADS.get(context.info_name or '', '')}{listed}",
        )
    return f"{path} needs {parameter.make_metavar(context)}", f"`{path} --help` has examples"


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
        guess = closest(value, map(str, kind.choices))
        message = f'"{value}" is not a value of it'
        hint = f'did you mean "{guess}"?' if guess else f"write one of: {', '.join(map(str, kind.choices))}"
    elif " does not exist" in message and (name := re.search(r"'(.+)'", message)):
        guess = closest(os.path.basename(name[1]), _listed(os.path.dirname(name[1]) or "."), likeness=0.75)
        message = f'there is no file "{name[1]}"'
        hint = f'did you mean "{os.path.join(os.path.dirname(name[1]), guess)}"?' if guess else "correct the path"
    elif isinstance(kind, click.IntRange):
        value, message = message, "must be a whole number" + (f" from {kind.min} on" if kind.min is not None else "")
        message += f", not {value.split(' ')[0]}"
        hint = f"write {label} {max(kind.min or 1, 1)} or more"
    elif not hint and message.startswith("write "):
        message, hint = "cannot be read", message
    return f"{label}: {message}" if label else message, hint


def _too_much(context: click.Context, arguments: Sequence[str]) -> tuple[str, str]:
    path = context.command_path
    if context.info_name in ("publish", "call"):
        start = next((index for index, item in enumerate(arguments) if item.startswith(("{", "["))), None)
        if start is not None:
            payload = " ".join(arguments[start:])
            hint = "write it in single quotes, in one piece: the shell has split it and removed its double quotes"
            return f"the payload {payload} is in several pieces", hint
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
        name for spec in specs for section in sections or ("queues", "events") for name in getattr(spec, section)
    )
    return list(dict.fromkeys(found))


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
