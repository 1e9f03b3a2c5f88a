"""What `runner publish` and `runner call` share: a payload, headers, and the pipeline that has the destination."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.output import echo_err
from runner.config.messages import closest
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.app import System

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


def load_destination(chosen: PipelineOptions, name: str) -> System:
    """Return the pipeline with a queue or event, first, and all others on its broker.

    Raises PipelineInvalid, UnknownTarget and NoBrokerToPublishTo.
    """
    from runner import app

    system = chosen.load(is_one_process=False)
    if name[:1] in ("{", "[", "@"):
        names = dict.fromkeys(each for pipeline in system.pipelines for each in pipeline.destinations)
        raise options.BadValue(
            "a payload stands in its place", f"write one of these before it: {', '.join(names)}", "NAME"
        )
    system = app.select_destination(system, name)
    if system.broker.is_memory:
        hint = "pass --broker amqp://…, or let a producer of the pipeline publish it"
        raise NoBrokerToPublishTo(
            "the in-process broker exists only inside `runner up`: nothing would receive this message", hint
        )
    return system


def read_body(payload: str) -> bytes:
    """Return the bytes to publish."""
    if payload == "-":
        if sys.stdin is None:  # it is closed
            raise options.BadValue("standard input is closed", "write the payload, or @FILE", "PAYLOAD")
        if sys.stdin.isatty():
            echo_err("type the payload; Ctrl-D ends it, Ctrl-C publishes nothing")
        return sys.stdin.buffer.read()
    if payload.startswith("@"):
        try:
            if Path(payload[1:]).is_char_device():  # it may never end
                raise OSError(None, "it is not a file")
            return Path(payload[1:]).read_bytes()
        except OSError as error:
            guess = closest(payload[1:], os.listdir())
            hint = f'did you mean "@{guess}"?' if guess else "correct the path after the @"
            raise options.BadValue(
                f"cannot read {payload[1:]}: {(error.strerror or '').lower()}", hint, "PAYLOAD"
            ) from None
    if re.fullmatch(r"[\w./-]+\.(jsonl?|txt|csv|xml|ya?ml|bin)", payload):
        hint = f"write @{payload} for what is in the file; text that ends like a file's name comes by standard input"
        raise options.BadValue(f'"{payload}" is the name of a file', hint, "PAYLOAD")
    if payload[:1] in ("{", "[") and not is_json(payload) and (meant := json_meant(payload)):
        from runner.pipeline.data_errors import json_error

        why = json_error(payload.encode("utf-8", "surrogateescape"))
        raise options.BadValue(f"it is not JSON: {why}", f"write {shlex.quote(meant)}", "PAYLOAD")
    return payload.encode("utf-8", "surrogateescape")


def json_meant(text: str) -> str:
    """Return the JSON that a shell has taken the quotes from, or that has other quotes; "" if that is not certain.

    The parts of `{"a": 1, "b": "x"}` arrive as `{a: 1, b: x}`, or as `a:1 b:x` from a shell that expands braces.
    """
    if text[:1] not in ("{", "["):
        text = "{" + ",".join(re.sub(r"^(\w+)=", r"\1:", part) for part in text.split()) + "}"
    text = re.sub(r",\s*([}\]])", r"\1", text)
    parts = [part.strip().strip("'\"") or part.strip() for part in re.split(r"([{}\[\],:])", text)]
    words = (part if part in ("", *"{}[],:") or is_json(part) else json.dumps(part) for part in parts)
    meant = "".join(f"{word} " if word in (",", ":") else word for word in words)
    return meant if is_json(meant) else ""


def is_json(text: str) -> bool:
    """Return whether a text is valid JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def warn_of_broken_json(bodies: Sequence[bytes], numbers: Sequence[int] = ()) -> None:
    """Say that a payload looks like JSON and is none: it is published as text."""
    from runner.pipeline.data_errors import json_error

    for index, body in enumerate(bodies):
        if body.lstrip()[:1] in (b"{", b"[") and (why := json_error(body)):
            where = f"line {numbers[index]}" if numbers else "the payload"
            echo_err(f"warning: {where} looks like JSON, but is not: {why}; it is text")


def _headers(values: tuple[str, ...]) -> dict[str, str]:
    """Parse the values of --header."""
    headers = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            meant = shlex.quote(re.sub(r":\s*", "=", value, count=1)) if ":" in value else f"{name or 'NAME'}=VALUE"
            raise options.BadValue(f'"{value}" is not NAME=VALUE', f"write {meant}")
        if name.startswith("x-runner-"):
            raise click.BadParameter('names that start with "x-runner-" belong to the runner')
        headers[name] = text
    return headers
