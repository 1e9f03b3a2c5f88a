"""Finds what stands in the wrong place of a command line: names, ids, settings and URLs that are no paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from glob import glob
from itertools import pairwise
from pathlib import Path

import click

from runner.cli.options import BadValue
from runner.cli.rewrite import LEFT_OUT, Rewrite, Rules, Wrong, WrongPath, explained, flag_with, joined, words_meant

SECTIONS = ("queues", "events", "subscribers", "producers")
_RUN = ("producers", "subscribers")
READS = ("validate", "config", "graph", "diff", "plan", "status", "explain", "schema", "test")
"""Commands that change nothing: what they cannot read can be left out."""


def check_paths(context: click.Context, arguments: Sequence[str]) -> None:
    """Raise WrongPath for a name, or a value of an option, where the path of a pipeline belongs."""
    given, words = context.params, [*context.command_path.split()[1:], *arguments]
    old, queue = given.get("old"), given.get("queue")
    revision = re.match(r"[\w.~^/@{}-]+(?=:)", str(old or ""))
    is_revision = revision or (old and old.suffix not in (".yaml", ".yml") and str(old)[0] not in "./~")
    if old and is_revision and not old.exists():
        way = from_git(revision[0] if revision else str(old), given.get("new"))
        raise BadValue(f'there is no file or folder "{old}"', f"for a revision of git, write: {way}", "OLD")
    for path in given.get("paths") or filter(None, [given.get("path")]):
        text = next((item for item in arguments if item and Path(item) == path), str(path))
        if text.startswith(("http://", "https://")) and not path.exists():
            raise BadValue(f'"{text}" is a URL', "download the file, and write its path", "PATH")
        is_file = path.suffix in (".yaml", ".yml") and not re.search(r"^[–—]|[=*?\[]", text)
        if not is_file and not path.exists() and text in arguments:
            _check(_NO_PATHS, Wrong(context, words, text), "path")
    if "payload" in given and any(map(NAMED.match, arguments)):
        raise WrongPath(without_names(context.command_path, words), context)
    if queue and queue in arguments and given.get("path") and queue not in names_in(given["path"], *SECTIONS):
        _check(_NO_QUEUES, Wrong(context, words, queue), "queue")


NAMED = re.compile(r"(?:(?:routing_key|queue|name|event)=(?=[\w.])|(?:payload|body|data|message)=(?=[{\[\"]))")
_UNUSED = re.compile(r"(?:exchange|properties|vhost)=")


def without_names(path: str, words: Sequence[str]) -> tuple[str, Rewrite]:
    """Return the command line without the names of arguments, as rabbitmqadmin has them."""
    first = next(word for word in words if NAMED.match(word))
    line = Rewrite([NAMED.sub("", word) for word in words if not _UNUSED.match(word)])
    return f'{path} takes its arguments without names, and not as "{first.partition("=")[0]}=…"', line


def _check(rules: Rules, wrong: Wrong, what: str) -> None:
    if answer := explained(rules, wrong, f'"{wrong.name}" is not a {what}'):
        raise WrongPath(answer, wrong.context)


def from_git(revision: str, path: object) -> str:
    """Return the commands that compare a file or folder with a revision of it."""
    folder = f"../{os.path.basename(revision)}"
    return f"git worktree add {folder} {revision}; runner diff {folder}/{path} {path}"


def _with_value(wrong: Wrong) -> Rewrite:
    """Return the command line with the value for another option than the flag before it, or without it."""
    words = flag_with(wrong.last, wrong.name)
    before = "write" if any(wrong.name in item for item in words) else LEFT_OUT
    return Rewrite([*wrong.before[:-1], *words, *wrong.after], before)


def _with_setting(wrong: Wrong) -> Rewrite:
    """Return the command line with `--set`: `ship=4` is the concurrency of the subscriber `ship`."""
    key, _, value = wrong.name.partition("=")
    files = [*filter(is_pipeline, wrong.words)] or pipelines_here()[:1]
    is_count = value.isdecimal() and any(key in names_in(file, "subscribers") for file in files)
    return wrong.line(end=["--set", f"subscribers.{key}.concurrency={value}" if is_count else wrong.name])


def _with_files(wrong: Wrong) -> tuple[str, Rewrite]:
    """Return the command line with the files that a pattern has, which the shell has left as it is."""
    found, is_one = sorted(glob(wrong.name, recursive=True)), "paths" not in wrong.parameters
    what = "is in quotes: the shell leaves it as it is" if found else "is the name of no file"
    files = found or pipelines_here() or ["PATH"]
    return f'"{wrong.name}" {what}', wrong.line(*(files[:1] if is_one else files))


def _with_test(wrong: Wrong) -> Rewrite:
    file, _, name = wrong.name.partition("::")
    return wrong.line(file, end=["--only", name.rpartition("::")[2]])


def _with_pipeline(wrong: Wrong) -> Rewrite:
    """Return the command line with the path of a pipeline, and the word where a name, an id or a test belongs."""
    text, here, parameters, start = wrong.name, file_with(wrong.name), wrong.parameters, len(wrong.before)
    beside = enumerate(pairwise(wrong.words), 1)
    found = [i for i, (last, item) in beside if is_pipeline(item) and getattr(wrong.own.get(last), "is_flag", True)]
    if later := [index for index in found if index > start]:
        return wrong.line(wrong.after.pop(later[0] - start - 1), text)
    file = wrong.before.pop(found[0]) if found else here or next(iter(pipelines_here()), "PATH")
    if not here and "ids" in parameters:
        return wrong.line(file, "--id", text)
    if parameters & {"name", "queue", "queues"} and text in names_in(file, *SECTIONS):
        return wrong.line(file, text)
    if "only" in parameters and (wrong.verb == "test" or text in names_in(file, *_RUN)):
        return wrong.line(file, end=["--only", text])
    return wrong.line(file, before=LEFT_OUT if text not in (file, f"{file}/") else "write")


def _is_before_its_pipeline(wrong: Wrong) -> bool:
    given = wrong.context.params
    others = [given.get("name"), given.get("queue"), *(given.get("queues") or ()), given.get("payload")]
    return any(item and is_pipeline(item) for item in others)


def _is_noun(wrong: Wrong) -> bool:
    """Return whether a word says what a command shows, or stands beside a pipeline in a command that only reads."""
    is_beside = wrong.verb in READS and any(map(is_pipeline, map(str, wrong.context.params.get("paths", ()))))
    return is_beside or any(wrong.name in words for _, words, _ in words_meant("noun"))


_TEXTS = ("--error", "--event", "--body", "--header")
_NO_PATHS: Rules = {
    "a setting in pieces": lambda at: joined(at.words) != at.words and Rewrite(joined(at.words)),
    "a pattern of files": lambda at: re.search(r"[*?\[]", at.name) and _with_files(at),
    "an option with a long dash": lambda at: (
        at.name[:1] in "–—" and (f'"{at.name}" begins with a long dash', at.line(f"--{at.name.lstrip('–—')}"))
    ),
    "the value of a setting": lambda at: at.option == "--set" and "=" not in at.last and at.joined("="),
    "the value of a flag": lambda at: getattr(at.own.get(at.last), "is_flag", False) and _with_value(at),
    "a second number of workers": lambda at: (
        at.name.isdecimal() and "--workers" in at.words and at.line(before=LEFT_OUT)
    ),
    "a number of workers": lambda at: (
        at.name.isdecimal() and "workers" in at.parameters and at.line(end=["--workers", at.name])
    ),
    "a broker": lambda at: re.match(r"\w+://", at.name) and at.line(end=["--broker", at.name]),
    "a setting": lambda at: "=" in at.name and _with_setting(at),
    "a test of a file": lambda at: re.match(".+::.", at.name) and "only" in at.parameters and _with_test(at),
    "a path as the value of the option before it": lambda at: (
        is_pipeline(at.last)
        and not getattr(at.own.get(at.option), "is_flag", True)
        and (
            f"{at.option} has {at.last} as its value",
            Rewrite([*at.before[:-2], at.last, at.option, at.name, *at.after]),
        )
    ),
    "a name before its pipeline": lambda at: (
        _is_before_its_pipeline(at) and (f'the path of a pipeline comes before "{at.name}"', _with_pipeline(at))
    ),
    "a name in a pipeline": lambda at: (
        (file := file_with(at.name)) and (f'"{at.name}" is a name in {file}, not a path', _with_pipeline(at))
    ),
    "an id": lambda at: "ids" in at.parameters and re.fullmatch("[0-9a-f-]{8,}", at.name) and _with_pipeline(at),
    "what a command shows": lambda at: _is_noun(at) and _with_pipeline(at),
}
_NO_QUEUES: Rules = {
    "every queue": lambda at: at.name.lower() in ("all", "*") and at.line(after="; without a name it is all of them"),
    "an id": lambda at: re.fullmatch("[0-9a-f-]{4,}", at.name) and at.line("--id", at.name),
    "the rest of a value": lambda at: ("=" in at.last or at.option in _TEXTS) and at.joined(" "),
}


def file_with(name: str) -> str:
    """Return the pipeline of the current folder that has this name, or a queue, event or other item of this name."""
    return next((file for file in pipelines_here() if name in names_in(file, "name", *SECTIONS)), "")


def pipelines_here() -> list[str]:
    from runner.config.loader import pipelines_here

    return pipelines_here()


def is_pipeline(path: str) -> bool:
    return os.path.isdir(path) or (path.endswith((".yaml", ".yml")) and os.path.exists(path))


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


def list_folder(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
