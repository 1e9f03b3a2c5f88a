"""`runner schema`: the JSON Schemas of pipeline files and test files, for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from runner.cli.output import echo_err, write_file
from runner.cli.verb import Verb


@click.command("schema", cls=Verb, short_help="Print the JSON Schema of pipeline files.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of stdout."
)
@click.option("--tests", "is_of_tests", is_flag=True, help="Print the JSON Schema of test files, *.test.yaml.")
def command(output: Path | None, is_of_tests: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of pipeline files. Editors complete and check pipelines with it.

    The YAML language server finds it by a comment in the pipeline, relative to the pipeline's folder:

    \b
      # yaml-language-server: $schema=pipeline.schema.json
    """
    from runner.operations.language_schema import language_schema, suite_schema

    text = json.dumps(suite_schema() if is_of_tests else language_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    write_file(output, text, "--output")
    echo_err(f"wrote {output}")
