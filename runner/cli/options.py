"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def paths(command: F) -> F:
    """Add the argument PATH..., one or more files or folders."""
    return click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))(command)


def broker(command: F) -> F:
    """Add `--broker`, checked like the URL in a file."""
    return click.option(
        "--broker",
        envvar="RUNNER_BROKER",
        metavar="URL",
        callback=_check_broker,
        help="Broker to use instead of the file's: amqp://…, amqps://… or memory.",
    )(command)


def env_file(command: F) -> F:
    """Add `--env-file`."""
    return click.option(
        "--env-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="File of NAME=value lines, for ${NAME} in the pipeline; the environment wins.",
    )(command)


def _check_broker(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value == "memory":
        return value
    from runner.config.addresses import parse_broker_url

    try:
        return parse_broker_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
