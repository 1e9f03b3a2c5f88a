"""`runner validate`: check pipelines and report every problem at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.output import echo_err, wants_color
from runner.cli.verb import Verb
from runner.errors import PipelineInvalid, has_errors
from runner.units import pluralize

Style = Literal["full", "concise", "json", "github", "sarif"]

if TYPE_CHECKING:
    from runner.config.loader import PipelineFile
    from runner.errors import Problem


@click.command("validate", cls=Verb, short_help="Check pipelines.")
@options.pipelines()
@options.style("full", "concise", "json", "github", "sarif", help="Format of the problems.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings.")
@click.option("--no-imports", is_flag=True, help="Check import paths in the source files, without importing them.")
@click.option("--fix", "is_fixing", is_flag=True, help="Write the fixes that are certain, and show the difference.")
def command(chosen: PipelineOptions, style: Style, strict: bool, no_imports: bool, is_fixing: bool) -> None:
    """Check pipelines as `runner up` does, imports of handlers included, and report every problem at once.

    PATH is a pipeline, or a folder: every *.yaml below it with a `version:` key. Problems go to stdout. --fix mends
    only what is certain, such as a misspelt key or 5 min in place of 5m; comments and line breaks stay.

    Exit codes: 0 valid, 1 warnings with --strict, 78 invalid.
    """
    if is_fixing:
        _fix(lambda: _check(chosen, imports=not no_imports)[0], style)
    problems, files = _check(chosen, imports=not no_imports)
    is_invalid = has_errors(problems)
    code = PipelineInvalid.exit_code if is_invalid else int(strict and bool(problems))
    _show(problems, style)
    if style == "full" and not code:
        from runner.operations.pipeline_files import disabled_items

        names = disabled_items(loaded.spec for loaded in files if loaded.spec is not None)
        disabled = f" · disabled: {', '.join(names)}" if names else ""
        echo_err(f"{pluralize(len(files), 'pipeline')} valid{disabled}")
    sys.exit(code)


def _check(chosen: PipelineOptions, *, imports: bool) -> tuple[Sequence[Problem], Sequence[PipelineFile]]:
    """Return all problems, and the files of pipelines."""
    from runner.system import check

    try:
        if not imports:
            return check(chosen.paths, chosen.environ, chosen.overlays)
        system = chosen.load(is_one_process=False, is_quiet=False)
        return system.warnings, [loaded for loaded, _ in system.specs]
    except PipelineInvalid as invalid:
        return invalid.problems, []


def _fix(check: Callable[[], Sequence[Problem]], style: Style) -> None:
    """Write the fixes, and show what has changed unless the output is for programs."""
    from runner.operations.fixes import apply_fixes, difference

    _, before, count = apply_fixes(check)
    if style in ("full", "concise"):
        for file, text in before.items():
            click.echo(difference(file, text))
    echo_err(f"{count} {'fix' if count == 1 else 'fixes'} written" if count else "nothing can be fixed for certain")


def _show(problems: Sequence[Problem], style: Style) -> None:
    from runner.config import diagnostics

    if style == "sarif":
        from runner import release
        from runner.operations.sarif import as_sarif

        click.echo(as_sarif(problems, release.version()), nl=False)
        return
    text = diagnostics.render(problems, style, colour=wants_color(sys.stdout.isatty()))
    click.echo(text, nl=False, color=True)
    if problems and style != "json":
        echo_err(diagnostics.count(problems))
    if problems and style == "full":
        echo_err(diagnostics.next_steps(problems))
