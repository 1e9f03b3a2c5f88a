"""`runner dev`: run pipelines on the in-process broker while they are written."""

from __future__ import annotations

from typing import Any

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.verb import Verb


@click.command("dev", cls=Verb, short_help="Run pipelines, and reload what you change.")
@options.pipelines()
@options.only
@options.log_format
@options.log_level
@options.http
def command(chosen: PipelineOptions, log_format: str | None, **settings: Any) -> None:
    """Run pipelines on the in-process broker, whatever they say, and reload them when their files change.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. What they include, the file of
    --env-file and the modules that the handlers import from the project are watched as well. What is wrong is printed,
    and the last good version goes on. Messages stay in their queues; those in hand finish first.

    The page listens on 127.0.0.1, at the port of `telemetry.http` or a free one. On a terminal, `?` lists keys: publish
    a message, list dead letters, reload, quit.

    Exit codes: 0 stopped, 1 handlers did not end in time, 2 wrong usage, 78 no such file, 130 forced by a second
    signal.
    """
    from runner.cli.reload_run import run_reloading
    from runner.cli.up_run import UpOptions

    fixed = {"broker": "memory", "until_idle": False, "allow_actions": True, "log_format": log_format or "console"}
    run_reloading(UpOptions(**{**vars(chosen), **fixed, **settings}), is_dev=True)
