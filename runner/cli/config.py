"""`runner config`: print the effective pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.output import errors_as_exit_codes
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.config.overlays import Overlay


@click.command("config", cls=Verb, short_help="Print the effective pipeline.")
@options.path
@click.option("--origin", is_flag=True, help="Add a comment to each value that says where it comes from.")
@options.env_file
def command(path: Path, overlays: tuple[Overlay, ...], origin: bool, environ: dict[str, str]) -> None:
    """Print the effective pipeline at PATH: files merged, variables replaced, every default written out.

    The output is itself a pipeline. With --origin each value has a comment: `pipeline.yaml:12`,
    `pipeline.yaml:12 (${VAR})`, `pipeline.yaml:4 (defaults)`, `--set broker.heartbeat`, or `default`. Nothing is
    imported.

    Secrets are printed as `***`: passwords in URLs, values from ${file:…}, and in `with` and `arguments` the values of
    keys such as password, secret, token or credentials, and values from variables under keys such as key or dsn.

    Exit codes: 0 printed, 78 invalid pipeline.
    """
    with errors_as_exit_codes():
        from runner.operations.effective_config import effective_config
        from runner.operations.pipeline_files import read_specs

        specs = read_specs([path], environ, overlays)
        if len(specs) > 1:
            names = ", ".join(str(loaded.path) for loaded, _ in specs)
            raise click.UsageError(f"there are {len(specs)} pipelines in {path}; name one of them: {names}")
        text = effective_config(*specs[0], origins=origin)
    click.echo(text, nl=False)
