"""Options and arguments that several verbs share, and their parsers."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from runner.cli.loader import PipelineOptions
from runner.cli.output import BadValue as BadValue
from runner.cli.output import echo_err, errors_as_exit_codes
from runner.cli.verb import complete_names

VARIABLES = (
    "RUNNER_BROKER",
    "RUNNER_MANAGEMENT",
    "RUNNER_TOKEN",
    "RUNNER_LOOP",
    "RUNNER_RELEASE",
    "RUNNER_UP_AS_WORKER",
)
"""Variables that several commands read."""

F = TypeVar("F", bound=Callable[..., Any])


def paths(command: F) -> F:
    """Add the argument PATH...: one or more files or folders; and `overlays`."""
    argument = click.argument(
        "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path), callback=_check_paths
    )
    return argument(overlays(command))


def path(command: F) -> F:
    """Add the argument PATH: a file or a folder; and `overlays`."""
    return click.argument("path", type=click.Path(path_type=Path))(overlays(command))


def overlays(command: F) -> F:
    """Add `--overlay` and `--set`, which change the pipelines; the command gets both as `overlays`, in their order."""

    @functools.wraps(command)
    def with_overlays(*, overlay_files: tuple[Path, ...], settings: tuple[str, ...], **given: Any) -> Any:
        from runner.config.overlays import Setting

        return command(overlays=(*overlay_files, *map(Setting, settings)), **given)

    overlay = click.option(
        "--overlay",
        "overlay_files",
        callback=_check_overlays,
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="File with changes to the pipelines, as for production; repeatable, later ones win.",
    )
    setting = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one value, after the overlays: subscribers.ship.concurrency=20; null removes; repeatable.",
    )
    return cast("F", overlay(setting(with_overlays)))


def style(*choices: str, help: str) -> Callable[[F], F]:
    """Add `--format`; the command gets it as `style`. The first choice is the default."""
    kind = click.Choice(choices)
    return click.option("--format", "style", type=kind, default=choices[0], show_default=True, help=help)


def only(command: F) -> F:
    """Add `--only` and `--except`, which select producers and subscribers; the command gets `only` and `without`."""
    names = complete_names("producers", "subscribers")
    without = click.option(
        "--except",
        "without",
        multiple=True,
        metavar="NAME",
        shell_complete=names,
        help="Do not run this producer or subscriber; repeatable. Its queue is still declared.",
    )
    return click.option(
        "--only",
        multiple=True,
        metavar="NAME",
        shell_complete=names,
        help="Run only this producer or subscriber; repeatable.",
    )(without(command))


def http_address(
    _: click.Context, __: click.Parameter, value: str | None, *, lowest_port: int = 0
) -> tuple[str, int] | None:
    """Return host and port of an address to listen on."""
    if value is None:
        return None
    from runner.units import parse_address

    try:
        return parse_address(value, lowest_port=lowest_port)
    except ValueError:
        name, port = re.sub(r"^(?:\w+://)?(?:.*@)?|/.*$", "", value).rpartition(":")[::2]
        digits = re.match(r"\d+(?![.\d]*\.)", port)
        number = int(digits[0]) if digits else 8080
        host = name or ("127.0.0.1" if digits or os.path.exists(port) else port)
        is_too_large = number > 65_535
        number = 8080 if is_too_large else number
        meant = f"{host}:{number}"
        after = f", or --http 0.0.0.0:{number} for all" if value.isdecimal() else ""
        what = f"the port {digits[0]} is too large" if digits and is_too_large else f'"{value}" is not HOST:PORT'
        raise BadValue(what, by=[meant], after=after) from None


def env_file(command: F) -> F:
    """Add `--env-file`, which is read before other options; the command gets the environment as `environ`.

    `ProcessEnvironment` is the context's object, for commands that read the file again.
    """
    return click.option(
        "--env-file",
        "environ",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        is_eager=True,
        callback=_fill_environment,
        help="File of NAME=value lines, for ${NAME} and for handlers. Variables that are already set win.",
    )(command)


def _fill_environment(context: click.Context, __: click.Parameter, value: Path | None) -> dict[str, str]:
    from runner.cli.environment import BadEnvironmentFile, ProcessEnvironment

    if value is not None and value.suffix in (".yaml", ".yml"):
        raise BadValue(f'"{value}" is no file of NAME=value lines', by=["--overlay", str(value)])
    context.obj = environment = ProcessEnvironment(value)
    try:
        environ = environment.fill()
    except BadEnvironmentFile as error:
        raise click.BadParameter(str(error)) from None
    if unknown := [name for name in environ if name.startswith("RUNNER_") and name not in VARIABLES]:
        _warn_of_misspelt(unknown, context)
    return environ


def _warn_of_misspelt(names: list[str], context: click.Context) -> None:
    """Write to stderr that a variable is not read whose name is like one that is read and not set."""
    from runner.config.messages import closest

    prefix = context.command_path.replace(" ", "_").upper()
    known = [*VARIABLES, *(variable_of(item, context) for item in context.command.params)]
    others = {f"RUNNER_{name.upper()}_" for name in context.find_root().command.list_commands(context)}  # type: ignore[attr-defined]  # the root is a group
    for name in names:
        is_of_other = any(name.startswith(other) for other in others) and not name.startswith(prefix)
        near = None if name in known or is_of_other else closest(name, known, likeness=0.85)
        if near and near not in names and near not in os.environ:
            echo_err(f"warning: the variable {name} is not read; did you mean {near}?")


def variable_of(option: click.Parameter, context: click.Context) -> str:
    """Return the variable that sets an option, beside those that it names."""
    name = max(option.opts, key=len).lstrip("-")
    return re.sub("[ -]", "_", f"runner {context.command_path.partition(' ')[2]} {name}").upper()


def rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Return the messages per second of `100/s` or `10/m`. A click callback."""
    if value is None:
        return None
    from runner.units import parse_rate

    try:
        per_second = parse_rate(value)
    except ValueError:
        per_second = 0.0
    if not per_second:
        from runner.config import guesses

        meant = f"{value}/s" if value.isdecimal() else guesses.rate(value)
        after = "" if meant else f' (an example, as "{value}" is no rate)'
        raise BadValue(f'"{value}" is not a rate', by=[meant or "100/s"], after=after)
    return per_second


def _check_overlays(_: click.Context, __: click.Parameter, values: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the paths. Raises BadValue for a setting and for a file of variables."""
    for path in values:
        if "=" in str(path) and not path.exists():
            word = next((item for item in sys.argv if str(path) in (item, str(Path(item)))), str(path))
            raise BadValue(f'"{path}" is not a file', "write", "--overlay", word=word, by=["--set", word])
        if ".env" in (path.name, path.suffix):
            message = f'"{path}" is a file of variables, not an overlay'
            raise BadValue(message, "write", "--overlay", word=str(path), by=["--env-file", str(path)])
    return values


def _check_broker(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value == "memory":
        return value
    if value.startswith("$"):
        hint = f'write "{value}" in double quotes: the shell replaces no variable in single ones'
        raise BadValue(f"{value} is not replaced by its value", hint)
    if value == "file":
        raise BadValue("a broker in a file needs its path", by=["file:shop.queue"])
    if value.endswith((".yaml", ".yml")):
        raise BadValue(f'"{value}" is a file, and --broker has no value', "is its variable set? It is empty here")
    from runner.config.broker_urls import parse_broker_url

    try:
        return parse_broker_url(value)
    except ValueError as error:
        from runner.config.name_fields import url_help
        from runner.redaction import mask_passwords

        found = re.match(r'(.*?)(?:write|did you mean) "?([^"?]+)"?\??(.*)', mask_passwords(url_help(value)[0]))
        assert found is not None
        example = f' (an example, as "{mask_passwords(value)}" is no URL)' if "@host:" in found[2] else ""
        raise BadValue(str(error), f"{found[1]}write", by=[found[2]], after=found[3] or example) from None


def _check_paths(context: click.Context, _: click.Parameter, value: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the paths. Raises BadValue for a file of variables, which is given by `--env-file`."""
    for path in value:
        if path.name == ".env" or path.suffix == ".env":
            message, word = f'"{path}" is a file of variables, not a pipeline', str(path)
            raise BadValue(message, word=word, by=["--env-file", word])
    return value


def duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration. A click callback."""
    from runner.units import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError:
        from runner.config import guesses

        text = str(value).strip().lstrip("-")
        message, meant = f'"{value}" is not a duration', guesses.duration(text)
        if text.isdecimal():  # 30 may be days: to guess the unit could delete or wait for something else
            after = f" (or {text}m, {text}h, {text}d)"
            raise BadValue(message, "for seconds, write", by=[f"{text}s"], after=after) from None
        after = "" if meant else f' (an example, as "{value}" is no duration)'
        raise BadValue(message, by=[meant or "30s"], after=after) from None


def _check_management(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from urllib.parse import urlsplit

    if value is not None:
        try:
            parts = urlsplit(value)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            from runner.redaction import mask_passwords

            host = value.partition("://")[2].rpartition("@")[2] if "://" in value else value
            name = host.partition("/")[0].partition(":")[0] or "host"
            name = "localhost" if value.isdecimal() else name
            meant = f"http://{host}" if "://" not in value and ":" in value else f"http://{name}:15672"
            raise BadValue(f'"{mask_passwords(value)}" is not the URL of a management API', by=[meant])
    return value


broker = click.option(
    "--broker",
    envvar="RUNNER_BROKER",
    show_envvar=True,
    metavar="URL",
    callback=_check_broker,
    help="Broker to use instead of the one in the file: amqp://…, amqps://…, file:PATH or memory.",
)
management = click.option(
    "--management",
    envvar="RUNNER_MANAGEMENT",
    show_envvar=True,
    metavar="URL",
    callback=_check_management,
    help="URL of RabbitMQ's management API. Default: the broker's host, port 15672 (15671 for amqps).",
)
wait = click.option(
    "--wait",
    "wait_s",
    default="0s",
    metavar="DURATION",
    callback=duration,
    help="How long to wait for a broker that is unreachable, such as 30s. Default: do not wait.",
)
redact = click.option(
    "--redact",
    "redacted",
    multiple=True,
    metavar="PATH",
    help="Mask this part of the payloads in a recorded test, as in customer.email; repeatable. Secrets are masked.",
)
allow_actions = click.option(
    "--allow-actions",
    is_flag=True,
    help="Let the page try dead letters, send them back and drop them, and pause subscribers. Needs a token: "
    "RUNNER_TOKEN, or else a new one, which is printed.",
)
log_format = click.option(
    "--log-format", type=click.Choice(["auto", "console", "json"]), help="Format of log lines. Default: auto."
)
log_level = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level that is written. Default: info.",
)
http = click.option(
    "--http",
    metavar="HOST:PORT",
    callback=http_address,
    help="Address for HTTP producers, /healthz, /readyz, /metrics and the page at /. Port 0 takes a free one, "
    "which is logged.",
)


def pipelines(*more: Callable[[Any], Any], is_one: bool = False) -> Callable[[F], F]:
    """Add PATH..., or PATH with `is_one`, `--env-file` and more options. The command gets them as a PipelineOptions.

    A RunnerError of the command is written to stderr.
    """

    def add(command: F) -> F:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            given["paths"] = given["paths"] if "paths" in given else (given.pop("path"),)
            names = [item.name for item in fields(PipelineOptions) if item.name in given]
            with errors_as_exit_codes():
                command(PipelineOptions(**{name: given.pop(name) for name in names}), **given)

        decorated: Any = run
        for option in (*reversed(more), env_file, path if is_one else paths):
            decorated = option(decorated)
        return cast("F", decorated)

    return add
