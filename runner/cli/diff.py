"""`runner diff`: what a change of pipelines breaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import stdout_to_stderr
from runner.cli.output import echo_err, errors_as_exit_codes, wants_color
from runner.cli.verb import Verb
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.config.overlays import Overlay

EXIT_DIFFERENT = 1


@click.command("diff", cls=Verb, short_help="Compare two versions of pipelines.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--breaking", "is_breaking", is_flag=True, help="Exit with 1 only for changes that break something.")
@options.style("text", "concise", "json", "github", help="Format of the differences.")
@options.overlays
@options.env_file
def command(
    old: Path, new: Path, is_breaking: bool, style: str, overlays: tuple[Overlay, ...], environ: dict[str, str]
) -> None:
    """Compare two versions of pipelines, files or folders: what a running system and other programs would notice.

    Queues, events, bindings, subscribers and payload schemas are compared. Each difference breaks something
    (breaking-change) or not (safe-change), and has its place in NEW. No broker is contacted, and no handler is
    imported, only schemas. OLD is read from the folder that lies to it as the current folder lies to NEW.

    Exit codes: 0 no difference, or none that breaks something with --breaking, 1 differences, 78 invalid pipeline.
    """
    with errors_as_exit_codes():
        from runner.config.diagnostics import render
        from runner.operations.diff import BREAKING, differences, read_version

        with stdout_to_stderr():
            before = read_version(old, environ, overlays, _folder_of(old, new))
            found = differences(before, read_version(new, environ, overlays, Path.cwd()))
    click.echo(render(found, style, colour=wants_color(True)), nl=False)
    breaking = sum(problem.code == BREAKING for problem in found)
    if style == "text":
        echo_err(f"{pluralize(breaking, 'breaking change')}, {pluralize(len(found) - breaking, 'safe change')}")
    raise SystemExit(EXIT_DIFFERENT if (breaking if is_breaking else found) else 0)


def _folder_of(old: Path, new: Path) -> Path:
    """Return the folder in which the old version is what the new one is in the current folder."""
    inside = old.absolute()
    folder = Path(*inside.parts[: len(inside.parts) - len(new.parts)])
    is_alike = not new.is_absolute() and folder / new == inside and folder.is_dir()
    return folder if is_alike else Path.cwd()
