"""`runner graph`: show who talks to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from runner.cli import options
from runner.cli.output import errors_as_exit_codes


@click.command("graph", short_help="Show who talks to whom.")
@options.paths
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "mermaid", "dot", "svg", "json"]),
    default="text",
    show_default=True,
    help="How it is written.",
)
@options.env_file
def command(
    paths: tuple[Path, ...], style: Literal["text", "mermaid", "dot", "svg", "json"], environ: dict[str, str]
) -> None:
    """Show who brings messages in, where they wait, who takes them and where they end; nothing is imported or run.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Several pipelines make one picture:
    they meet in the queues and events that they share.

    In text, → leads on, ✗ names the dead-letter queue, ↻ the retries, and ↺ a way back.

    Exit codes: 0 shown, 78 invalid pipeline.
    """
    with errors_as_exit_codes():
        from runner.operations.graph import render
        from runner.operations.graph.model import build_graph
        from runner.operations.pipeline_files import read_specs

        text = render(build_graph(read_specs(paths, environ)), style)
    click.echo(text, nl=False)
