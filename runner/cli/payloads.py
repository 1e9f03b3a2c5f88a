"""What `runner publish` and `runner call` share: a payload, headers, and the pipeline that has the destination."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from ast import literal_eval
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.output import echo_err
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.system import System

F = TypeVar("F", bound=Callable[..., Any])


class NoBrokerToPublishTo(RunnerError):
    """The pipeline runs on the in-process broker, which other processes cannot reach."""

    exit_code = 2


def headers_option(command: F) -> F:
    """Add `--header`."""
    return click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda _, __, values: _headers(values),
        help="Header of each message; repeatable.",
    )(command)


def check_name(context: click.Context, _: click.Parameter, value: str) -> str:
    """Return the name of a queue or event. Raises BadValue for a payload, or a file of one, in its place."""
    from runner.cli.misplaced import is_pipeline, names_in

    if not context.params["path"].exists():
        return value
    is_file = os.path.isfile(value) and not is_pipeline(value)
    names = names_in(context.params["path"]) if is_file or value[:1] in ("{", "[", "@") else [value]
    if value in names:
        return value
    by, after = [next(iter(names), "NAME"), f"@{value}" if is_file else value], f" (there are: {', '.join(names)})"
    raise options.BadValue("a payload stands in its place", label="NAME", word=value, by=by, after=after)


def load_destination(chosen: PipelineOptions, name: str) -> System:
    """Return the pipeline with a queue or event, first, and all others on its broker.

    Raises PipelineInvalid, UnknownTarget and NoBrokerToPublishTo.
    """
    from runner.system import select_destination

    system = chosen.load(is_one_process=False)
    system = select_destination(system, name)
    if system.broker.is_memory:
        hint = "pass --broker amqp://…, or let a producer of the pipeline publish it"
        raise NoBrokerToPublishTo(
            "the in-process broker exists only inside `runner up`: nothing would receive this message", hint
        )
    return system


def read_body(payload: str) -> bytes:
    """Return the bytes to publish. An empty file or standard input is refused: what should write it has failed."""
    if payload == "-":
        if sys.stdin is None:  # it is closed
            raise options.BadValue("standard input is closed", "write the payload, or @FILE", "PAYLOAD")
        if sys.stdin.isatty():
            echo_err("type the payload; Ctrl-D ends it, Ctrl-C publishes nothing")
        return _not_empty(sys.stdin.buffer.read(), "standard input", payload)
    if payload.startswith("@"):
        try:
            if Path(payload[1:]).is_char_device():  # it may never end
                raise OSError(None, "it is not a file")
            return _not_empty(Path(payload[1:]).read_bytes(), payload[1:], payload)
        except OSError as error:
            near = [] if Path(payload[1:]).exists() else _files_like(payload[1:])
            message = f"cannot read {payload[1:]}: {(error.strerror or '').lower()}"
            if not near:
                raise options.BadValue(message, "correct the path after the @", "PAYLOAD") from None
            by, after = [f"@{near[0]}"], "".join(f" (or {shlex.quote(f'@{name}')})" for name in near[1:])
            raise options.BadValue(message, "write", "PAYLOAD", word=payload, by=by, after=after) from None
    if re.fullmatch(r"[\w./-]+\.(jsonl?|txt|csv|xml|ya?ml|bin)", payload):
        message, after = (
            f'"{payload}" is the name of a file',
            " (text that ends like a file's name comes by standard input)",
        )
        raise options.BadValue(message, label="PAYLOAD", word=payload, by=[f"@{payload}"], after=after)
    if re.match(r"'?[{\[]", payload) and not is_json(payload) and (meant := json_meant(payload)):
        from runner.pipeline.data_errors import json_error

        why = json_error(payload.encode("utf-8", "surrogateescape"))
        raise options.BadValue(f"it is not JSON: {why}", label="PAYLOAD", word=payload, by=[meant])
    return payload.encode("utf-8", "surrogateescape")


def _not_empty(body: bytes, name: str, payload: str) -> bytes:
    if not body.strip():
        if click.get_current_context().params.get("lines"):
            raise options.BadValue(f"there are no lines in {name}", "look at what should write them", "PAYLOAD")
        word = payload if payload in sys.argv[1:] else ""
        message = f"the payload from {name} is empty"
        raise options.BadValue(message, "for an empty message, write", "PAYLOAD", word=word, by=[""])
    return body


def _files_like(path: str) -> list[str]:
    """Return up to three files whose names are like that of a file that is not there, the nearest first."""
    folder, name = os.path.split(path)
    with suppress(OSError):
        return [os.path.join(folder, each) for each in get_close_matches(name, os.listdir(folder or "."), cutoff=0.75)]
    return []


def json_meant(text: str) -> str:
    """Return the JSON that a shell has taken the quotes from, or that has other quotes; "" if that is not certain.

    The parts of `{"a": 1, "b": "x"}` arrive as `{a: 1, b: x}`, or as `a:1 b:x` from a shell that expands braces.
    """
    if _unquoted(text)[:1] in ("{", "[") and is_json(_unquoted(text)):  # as a shell of Windows leaves it
        return _unquoted(text)
    if text[:1] not in ("{", "["):
        text = "{" + ",".join(re.sub(r"^(\w+)=", r"\1:", part) for part in text.split()) + "}"
    text = re.sub(r",\s*([}\]])", r"\1", text)
    with suppress(ValueError, SyntaxError, RecursionError, TypeError):  # as Python writes it
        return json.dumps(literal_eval(text), ensure_ascii=False)
    strings = r"""('(?:[^'\\]|\\.)*'(?=\s*[,:}\]])|"(?:[^"\\]|\\.)*"(?=\s*[,:}\]])|[{}\[\],:])"""
    parts = (_OF_PYTHON.get(part.strip(), part.strip()) for part in re.split(strings, text))
    words = (
        part if part in ("", *"{}[],:") or is_json(part) else json.dumps(_unquoted(part), ensure_ascii=False)
        for part in parts
    )
    meant = "".join(f"{word} " if word in (",", ":") else word for word in words)
    return meant if is_json(meant) else ""


_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}


def _unquoted(text: str) -> str:
    return text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[:1] else text


def is_json(text: str) -> bool:
    """Return whether a text is valid JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def check_json(payload: str, bodies: Sequence[bytes], numbers: Sequence[int] = ()) -> None:
    """Refuse a payload that is meant as JSON and is none, as one that ends too early, and several payloads in one.

    `numbers` are the lines of the bodies, for `--lines`. Other text that begins like JSON is published as text, with
    a warning, and so is all of standard input, where text can be given that looks like JSON.
    """
    from runner.pipeline.data_errors import json_error

    are_data = any(body.lstrip()[:1] in (b"{", b"[") and not json_error(body) for body in bodies)
    for index, body in enumerate(bodies):
        if body.lstrip()[:1] not in (b"{", b"[") or not (why := json_error(body)):
            continue
        where = f"line {numbers[index]}" if numbers else "the payload"
        lines = [line for line in body.splitlines() if line.strip()]
        if not numbers and len(lines) > 1 and not any(map(json_error, lines)):
            after = f" < {shlex.quote(payload[1:])}" if payload[:1] == "@" else ""
            word, message = payload if payload in sys.argv[1:] else "", "each line of it is JSON"
            if click.get_current_context().info_name == "call":
                raise options.BadValue(message, "choose one: a call has one payload", "PAYLOAD")
            raise options.BadValue(message, "write", "PAYLOAD", word=word, by=["--lines"], after=after)
        if are_data or (payload != "-" and _LIKE_JSON.match(body)):
            meant = json_meant(body.decode(errors="replace").strip())
            hint = "complete it" if "too early" in why else f"write {meant}" if 0 < len(meant) < 200 else "correct it"
            raise options.BadValue(f"{where} is not JSON: {why}", f"{hint}; text comes by standard input", "PAYLOAD")
        echo_err(f"warning: {where} looks like JSON, but is not: {why}; it is text")
    if re.fullmatch(r"\w+=[^\s/=:]+", payload) and (meant := json_meant(payload)):
        echo_err(f"warning: the payload is text; for JSON, write {shlex.quote(meant)}")


_LIKE_JSON = re.compile(rb"""\s*(\{[^}]*[":]|\{\s*$|\[\s*(["{\[]|-?\d+\s*(,|$)))""")


def _headers(values: tuple[str, ...]) -> dict[str, str]:
    """Parse the values of --header."""
    headers = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals or name[:1] in ("{", '"', "'"):
            by = [part for each in _headers_meant(value) for part in ("--header", each)]
            raise options.BadValue(f'"{value}" is not NAME=VALUE', label="--header", word=value, by=by)
        if name.startswith("x-runner-"):
            raise click.BadParameter('names that start with "x-runner-" belong to the runner')
        headers[name] = text
    return headers


_QUOTES = " \"'"


def _headers_meant(value: str) -> list[str]:
    """Return the headers that JSON, or a header as HTTP has it, means."""
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if isinstance(found, dict) and found:
        return [f"{name}={text}" for name, text in found.items()]
    name, colon, text = value.strip("{}\"' ").partition(":")
    word = re.sub(r"\W+$|^\W+", "", name) or "NAME"
    return [f"{word}={text.strip(_QUOTES) if colon else 'VALUE'}"]
