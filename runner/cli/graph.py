"""`runner graph`: draw producers, queues, events and subscribers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from runner.cli import options
from runner.cli.output import errors_as_exit_codes
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.config.overlays import Overlay


@click.command("graph", cls=Verb, short_help="Draw pipelines.")
@options.paths
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "mermaid", "dot", "svg", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)
@options.env_file
def command(
    paths: tuple[Path, ...],
    overlays: tuple[Overlay, ...],
    style: Literal["text", "mermaid", "dot", "svg", "json"],
    environ: dict[str, str],
) -> None:
    """Draw producers, queues, events and subscribers, and how messages flow between them. Nothing is imported or run.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Several pipelines make one graph,
    joined by the queues and events they share.

    In text, → is a flow, ✗ the dead-letter queue, ↻ the retries, and ↺ a cycle.

    Exit codes: 0 shown, 78 invalid pipeline.
    """
    with errors_as_exit_codes():
        from runner.operations.graph import render
        from runner.operations.graph.model import build_graph
        from runner.operations.pipeline_files import read_specs

        text = render(build_graph(read_specs(paths, environ, overlays)), style)
    click.echo(text, nl=False)
