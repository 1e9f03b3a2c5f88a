"""`runner graph`: draw producers, queues, events and subscribers."""

from __future__ import annotations

from typing import Literal

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.verb import Verb


@click.command("graph", cls=Verb, short_help="Draw pipelines.")
@options.pipelines()
@options.style("text", "mermaid", "dot", "svg", "json", help="Output format.")
def command(chosen: PipelineOptions, style: Literal["text", "mermaid", "dot", "svg", "json"]) -> None:
    """Draw producers, queues, events and subscribers, and how messages flow between them. Nothing is imported or run.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Several pipelines make one graph,
    joined by the queues and events they share.

    In text, → is a flow, ✗ the dead-letter queue, ↻ the retries, and ↺ a cycle.

    Exit codes: 0 shown, 78 invalid pipeline.
    """
    from runner.operations.graph import render
    from runner.operations.graph.model import build_graph

    click.echo(render(build_graph(chosen.specs()), style), nl=False)
