"""`runner config`: print the effective pipeline."""

from __future__ import annotations

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.verb import Verb


@click.command("config", cls=Verb, short_help="Print the effective pipeline.")
@options.pipelines(is_one=True)
@click.option("--origin", is_flag=True, help="Add a comment to each value that says where it comes from.")
def command(chosen: PipelineOptions, origin: bool) -> None:
    """Print the effective pipeline at PATH: files merged, variables replaced, every default written out.

    The output is itself a pipeline. With --origin each value has a comment: `pipeline.yaml:12`,
    `pipeline.yaml:12 (${VAR})`, `pipeline.yaml:4 (defaults)`, `--set broker.heartbeat`, or `default`. Nothing is
    imported.

    Secrets are printed as `***`: passwords in URLs, values from ${file:…}, and in `with` and `arguments` the values of
    keys such as password, secret, token or credentials, and values from variables under keys such as key or dsn.

    Exit codes: 0 printed, 78 invalid pipeline.
    """
    from runner.operations.effective_config import effective_config

    specs = chosen.specs()
    if len(specs) > 1:
        first, *others = (str(loaded.path) for loaded, _ in specs)
        what, word = f"there are {len(specs)} pipelines in {chosen.paths[0]}", str(chosen.paths[0])
        raise options.BadValue(what, word=word, by=[first], after=f" (there are also {', '.join(others)})")
    click.echo(effective_config(*specs[0], origins=origin), nl=False)
