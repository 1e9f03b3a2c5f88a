"""Finds what stands in the wrong place of a command line: names, ids, settings and URLs that are no paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from runner.cli.options import BadValue
from runner.cli.rewrite import LEFT_OUT, Rewrite, WrongPath, flag_with, joined, words_meant

SECTIONS = ("queues", "events", "subscribers", "producers")
_RUN = ("producers", "subscribers")
READS = ("validate", "config", "graph", "diff", "plan", "status", "explain", "schema", "test")
"""Commands that change nothing: what they cannot read can be left out."""


def check_paths(context: click.Context, arguments: Sequence[str]) -> None:
    """Raise WrongPath for a name, or a value of an option, where the path of a pipeline belongs."""
    given = context.params
    old, new = given.get("old"), given.get("new")
    if old and not old.exists() and old.suffix not in (".yaml", ".yml") and str(old)[0] not in "./~":
        way = from_git(str(old), new)
        raise BadValue(f'there is no file or folder "{old}"', f"for a revision of git, write: {way}", "OLD")
    for path in given.get("paths") or filter(None, [given.get("path")]):
        text = next((item for item in arguments if item and Path(item) == path), str(path))
        if path.exists():
            continue
        if text.startswith(("http://", "https://")):
            raise BadValue(f'"{text}" is a URL', "download the file, and write its path", "PATH")
        if text[:1] in "–—":
            raise WrongPath(f'"{text}" begins with a long dash', context, text)
        if path.suffix in (".yaml", ".yml") and "=" not in text:
            continue
        others = [given.get("name"), given.get("queue"), *(given.get("queues") or ()), given.get("payload")]
        is_known = _is_value(context, text, arguments) or "://" in text or "=" in text or "::" in text
        if is_known or joined(arguments) != list(arguments):
            raise WrongPath(f'"{text}" is not a path', context, text)
        if any(item and is_pipeline(item) for item in others):
            raise WrongPath(f'the path of a pipeline comes before "{text}"', context, text)
        if file := file_with(text):
            raise WrongPath(f'"{text}" is a name in {file}, not a path', context, text)
        is_id = "ids" in given and re.fullmatch(r"[0-9a-f-]{8,}", text)
        is_noun = context.info_name in READS and any(map(is_pipeline, map(str, given.get("paths", ()))))
        is_count = "workers" in given and text.isdecimal()
        if is_id or is_noun or is_count or any(text in words for _, words, _ in words_meant("noun")):
            raise WrongPath(f'"{text}" is not a path', context, text)
    _check_queue(context, arguments)


def from_git(revision: str, path: object) -> str:
    """Return the commands that compare a file or folder with a revision of it."""
    folder = f"../{os.path.basename(revision)}"
    return f"git worktree add {folder} {revision}; runner diff {folder}/{path} {path}"


def _check_queue(context: click.Context, arguments: Sequence[str]) -> None:
    """Raise WrongPath for an id, or the second word of an option's value, in place of a queue."""
    path, queue = context.params.get("path"), context.params.get("queue")
    if not queue or queue not in arguments or not path or queue in names_in(path, *SECTIONS):
        return
    start = arguments.index(queue)
    is_value = "=" in arguments[start - 1] or arguments[start - 2] in ("--error", "--event", "--body", "--header")
    if re.fullmatch("[0-9a-f-]{4,}", queue) or (start > 1 and is_value):
        raise WrongPath(f'"{queue}" is not a queue', context, queue)


def _is_value(context: click.Context, text: str, arguments: Sequence[str]) -> bool:
    """Return whether an argument was meant as the value of a flag, or as the value after `--set KEY`."""
    flags = {option for item in context.command.params if getattr(item, "is_flag", False) for option in item.opts}
    start = arguments.index(text) if text in arguments else 0
    is_setting = start > 1 and arguments[start - 2] == "--set" and "=" not in arguments[start - 1]
    return is_setting or (start > 0 and arguments[start - 1] in flags)


def with_path(context: click.Context, path: str, arguments: list[str]) -> Rewrite:
    """Return the command line with the path of a pipeline where a name stands."""
    if path[:1] in "–—":
        return Rewrite([f"--{item.lstrip('–—')}" if item == path else item for item in arguments])
    start = arguments.index(path)
    rest = [*arguments[:start], *arguments[start + 1 :]]
    if path == context.params.get("queue"):
        if re.fullmatch("[0-9a-f-]{4,}", path):
            return Rewrite([*rest[:start], "--id", path, *rest[start:]])
        rest[start - 1] += f" {path}"
        return Rewrite(rest)
    if _is_value(context, path, arguments):
        if arguments[start - 2] == "--set":
            rest[start - 1] += f"={path}"
        else:
            rest[start - 1 : start] = flag_with(rest[start - 1], path)
        return Rewrite(rest, "write" if any(path in item for item in rest) else LEFT_OUT)
    if path.isdecimal() and "workers" in context.params:
        return Rewrite([*rest, "--workers", path])
    if "://" in path or "=" in path:
        key, _, value = path.partition("=")
        files = [item for item in rest if is_pipeline(item)] or pipelines_here()[:1]
        if any(key in names_in(file, "subscribers") for file in files) and value.isdecimal():
            path = f"subscribers.{key}.concurrency={value}"
        return Rewrite([*rest, "--broker" if re.match(r"\w+://", path) else "--set", path])
    if file := next((item for item in rest[start:] if is_pipeline(item)), None):
        rest.remove(file)
        return Rewrite([*rest[:start], file, path, *rest[start:]])
    if "::" in path:
        return Rewrite([*rest[:start], path.partition("::")[0], *rest[start:], "--only", path.rpartition("::")[2]])
    file = next(filter(is_pipeline, rest), "") or file_with(path) or next(iter(pipelines_here()), "PATH")
    rest = [item for item in rest if item != file]
    parameters = {item.name for item in context.command.params}
    if not file_with(path) and "ids" in parameters:
        return Rewrite([*rest[:start], file, "--id", path, *rest[start:]])
    if parameters & {"name", "queue", "queues"} and path in names_in(file, *SECTIONS):
        return Rewrite([*rest[:start], file, path, *rest[start:]])
    if "only" in parameters and (context.info_name == "test" or path in names_in(file, *_RUN)):
        return Rewrite([*rest[:start], file, *rest[start:], "--only", path])
    return Rewrite([*rest[:start], file, *rest[start:]], LEFT_OUT if path not in (file, f"{file}/") else "write")


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
