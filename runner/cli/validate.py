"""`runner validate`: check pipelines and report every problem at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from runner.cli import options
from runner.cli.endings import errors_reported, wants_color
from runner.cli.environment import read_environment
from runner.errors import PipelineInvalid

Style = Literal["full", "concise", "json", "github"]

if TYPE_CHECKING:
    from runner.errors import Problem


@click.command("validate", short_help="Check pipelines.")
@options.paths
@click.option(
    "--format",
    "style",
    type=click.Choice(["full", "concise", "json", "github"]),
    default="full",
    show_default=True,
    help="How problems are written.",
)
@click.option("--strict", is_flag=True, help="Warnings fail, too (exit code 1).")
@options.env_file
def command(paths: tuple[Path, ...], style: Style, strict: bool, env_file: Path | None) -> None:
    """Check pipelines as `runner up` would, handlers' imports included, and report every problem at once.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Problems go to stdout.

    Exit codes: 0 valid, 1 warnings with --strict, 78 invalid.
    """
    from runner import app

    environ = read_environment(env_file)
    code = 0
    problems: Sequence[Problem]
    with errors_reported():
        try:
            system = app.read(paths, environ)
            problems = system.warnings
            code = 1 if strict and problems else 0
            files = len(system.pipelines)
        except PipelineInvalid as invalid:
            problems, code, files = invalid.problems, invalid.exit_code, 0
    _show(problems, style)
    if style == "full" and not code:
        click.echo(f"{files} pipeline{'s'[: files != 1]} valid", err=True)
    sys.exit(code)


def _show(problems: Sequence[Problem], style: Style) -> None:
    from runner.config import diagnostics

    text = diagnostics.render(problems, style, colour=wants_color(sys.stdout.isatty()))
    click.echo(text, nl=False, color=True)
    if problems and style != "json":
        click.echo(diagnostics.count(problems), err=True)
