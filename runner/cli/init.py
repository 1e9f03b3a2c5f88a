"""`runner init`: start a project."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

import click

from runner.cli.output import BadValue, cannot_write, echo_err, errors_as_exit_codes
from runner.cli.verb import Verb


@click.command("init", cls=Verb, short_help="Start a project.")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Write a working project into DIR (default: the current folder): a pipeline, its handlers, tests, a README.

    Existing files are never overwritten. The names of the new files go to stdout.

    Exit codes: 0 written, 2 files exist already.
    """
    if folder.is_file() or (not folder.exists() and folder.suffix in (".yaml", ".yml", ".py")):
        hint = f"init makes a folder: runner init {shlex.quote(str(folder.with_suffix('')))}"
        raise BadValue(f'"{folder}" is the name of a file', hint, "DIR")
    with errors_as_exit_codes():
        from runner.operations.project_template import write_project

        try:
            written = write_project(folder)
        except OSError as error:
            raise cannot_write(folder, error, "DIR") from None
    for path in written:
        click.echo(path)
    steps = ["runner validate pipeline.yaml", "runner up pipeline.yaml --until-idle", "runner test ."]
    steps += [] if find_spec("pytest") is not None else ["python -m pip install pytest"]
    steps += ["python -m pytest"]
    if folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(folder))}")
    echo_err("next:\n" + "".join(f"  {step}\n" for step in steps), ends_line=False)
