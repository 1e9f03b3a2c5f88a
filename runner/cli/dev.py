"""`runner dev`: run pipelines on the in-process broker while they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.output import errors_as_exit_codes
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.config.overlays import Overlay


@click.command("dev", cls=Verb, short_help="Run pipelines, and reload what you change.")
@options.paths
@options.only
@options.log_format
@options.log_level
@options.http
@options.env_file
def command(paths: tuple[Path, ...], overlays: tuple[Overlay, ...], log_format: str | None, **settings: Any) -> None:
    """Run pipelines on the in-process broker, whatever they say, and reload them when their files change.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. What they include, the file of
    --env-file and the modules that the handlers import from the project are watched as well. What is wrong is printed,
    and the last good version goes on. Messages stay in their queues; those in hand finish first.

    The page listens on 127.0.0.1, at the port of `telemetry.http` or a free one. On a terminal, `?` lists keys: publish
    a message, list dead letters, reload, quit.

    Exit codes: 0 stopped, 1 handlers did not end in time, 2 wrong usage, 78 no such file, 130 forced by a second
    signal.
    """
    with errors_as_exit_codes():
        from runner.cli.reload_run import run_reloading
        from runner.cli.up_run import UpOptions

        up_options = UpOptions(
            paths,
            overlays,
            broker="memory",
            management=None,
            until_idle=False,
            allow_actions=True,
            log_format=log_format or "console",
            **settings,
        )
        run_reloading(up_options, is_dev=True)
