"""`runner test`: run test files on the in-process broker, with virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from runner.cli import options
from runner.cli.loader import stdout_to_stderr
from runner.cli.output import check_output, echo_err, errors_as_exit_codes, wants_color, write_file
from runner.cli.signals import stop_on_signals
from runner.cli.verb import Verb
from runner.config.diagnostics import display_path
from runner.config.messages import closest
from runner.errors import PipelineInvalid, RunnerError
from runner.tasks import cancel_and_wait

if TYPE_CHECKING:
    from runner.config.overlays import Overlay
    from runner.errors import Problem
    from runner.testing.coverage import Coverage
    from runner.testing.runs import CaseResult
    from runner.testing.suites import Suite

Style = Literal["text", "github", "json"]


class NoSuchTest(RunnerError):
    """No test has a name that `--only` matches."""

    exit_code = 2


@click.command("test", cls=Verb, short_help="Run the tests of pipelines.")
@options.paths
@click.option(
    "--only", metavar="PATTERN", help="Run only tests whose name contains this, or matches it as in '*paid*'."
)
@options.style("text", "github", "json", help="Format of the results.")
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the results as JUnit XML.",
)
@click.option(
    "--watch",
    "is_watching",
    is_flag=True,
    help="Run them again when a *.py or *.yaml file changes, below PATH or the current folder. Needs the extra dev.",
)
@click.option("--coverage", "is_covered", is_flag=True, help="List what no test has reached.")
@click.option(
    "--fail-under",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Fail if tests reach less than this. Implies --coverage.",
)
def command(
    paths: tuple[Path, ...],
    only: str | None,
    style: Style,
    junit: Path | None,
    is_covered: bool,
    fail_under: float | None,
    is_watching: bool,
    overlays: tuple[Overlay, ...],
) -> None:
    """Run the tests in PATH: a test file, or a folder: every *.test.yaml below it.

    The pipelines run on the in-process broker with virtual time, so hours of retries and schedules take milliseconds.

    Exit codes: 0 passed, 1 a test failed or --fail-under is not reached, 2 no test matches, 78 a file is wrong.
    """
    if fail_under is not None and 0 < fail_under < 1:
        message = f"{fail_under:g} is less than one percent"
        raise options.BadValue(message, label="--fail-under", by=[f"{fail_under * 100:g}"])
    if junit is not None:
        check_output(junit, "<?xml ", "--junit")
    with errors_as_exit_codes():
        if is_watching:
            asyncio.run(_run_on_changes(paths))
            return
        suites = _load(paths, overlays, style)
        results = []
        for suite, name in _selected(suites, only):
            results.append(result := _run(suite, name))
            if style == "text":
                _show(result, is_first=len(results) == 1 or results[-2].suite is not suite)
    coverage = None
    if is_covered or fail_under is not None:
        from runner.testing.coverage import Coverage

        coverage = Coverage(results)
    _report(results, coverage, style)
    if junit is not None:
        from runner.testing.reports import as_junit

        write_file(junit, as_junit(results), "--junit")
    is_below = coverage is not None and fail_under is not None and coverage.percent < fail_under
    if is_below:
        echo_err(f"tests reach less than {fail_under:g} %")
    sys.exit(int(is_below or any(result.outcome == "failed" for result in results)))


async def _run_on_changes(paths: Sequence[Path]) -> None:
    """Run this command without `--watch`, again after each change of a file, until a signal.

    Each run is a process of its own, so that every module is imported as it is now. Raises WatchUnavailable.
    """
    from runner.cli.watching import project_folders, require_watchfiles, watch

    require_watchfiles()
    roots = [Path(), *(path if path.is_dir() else path.parent for path in paths)]
    changes = watch(lambda: project_folders(roots), lambda path: path.suffix in (".py", ".yaml", ".yml"))
    stopping = asyncio.ensure_future(stop_on_signals().wait())
    change = asyncio.ensure_future(anext(changes))
    arguments = [argument for argument in sys.orig_argv[1:] if argument != "--watch"]
    environ = {name: value for name, value in os.environ.items() if name != "RUNNER_TEST_WATCH"}
    while not stopping.done():
        tests = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environ)
        await tests.wait()
        await asyncio.wait([stopping, change], return_when=asyncio.FIRST_COMPLETED)
        if change.done():
            names = sorted(display_path(path) for path in change.result())
            echo_err(f"\nchanged: {', '.join(names[:3])}{' …' * (len(names) > 3)}")
            change = asyncio.ensure_future(anext(changes))
    await cancel_and_wait(change)


def _load(paths: Sequence[Path], overlays: Sequence[Overlay], style: Style) -> list[Suite]:
    """Return the test files. Exits with 78 after the problems of all files if any is wrong."""
    from runner.config import diagnostics
    from runner.config.suite_loader import find_suites
    from runner.testing.suites import load_suite

    suites: list[Suite] = []
    problems: dict[Problem, None] = {}
    for path in find_suites(paths):
        try:
            with stdout_to_stderr():
                suites.append(load_suite(path, overlays))
        except PipelineInvalid as invalid:
            problems |= dict.fromkeys(invalid.problems)
    if problems and style == "text":
        raise PipelineInvalid(list(problems))
    if problems:
        click.echo(diagnostics.render(problems, style), nl=False)
        sys.exit(PipelineInvalid.exit_code)
    return suites


def _selected(suites: Sequence[Suite], only: str | None) -> Iterator[tuple[Suite, str]]:
    """Yield each test that is to run, with its file. Raises NoSuchTest."""
    wanted = (only or "").lower()
    found = [
        (suite, name)
        for suite in suites
        for name in suite.spec.tests
        if wanted in name.lower() or fnmatchcase(name.lower(), wanted)
    ]
    if not found:
        near = closest(wanted, [name for suite in suites for name in suite.spec.tests])
        hint = f'did you mean "{near}"?' if near else "leave --only out to see their names"
        raise NoSuchTest(f'no test has "{only}" in its name', hint)
    yield from found


def _run(suite: Suite, name: str) -> CaseResult:
    """Run a test. What its handlers print is a part of the result."""
    from runner.testing.runs import run_case

    printed = io.StringIO()
    with stdout_to_stderr(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        result = run_case(suite, name)
    return replace(result, printed=printed.getvalue())


def _show(result: CaseResult, *, is_first: bool) -> None:
    """Write the line of a test, and below it what is wrong. The first one of a file has the file's name above it."""
    from runner.testing.reports import failure_text, result_line

    if is_first:
        click.echo(display_path(result.suite.path))
    click.echo(result_line(result))
    if result.failures:
        click.echo("\n" + failure_text(result, colour=wants_color(sys.stdout.isatty())), color=True)


def _report(results: Sequence[CaseResult], coverage: Coverage | None, style: Style) -> None:
    from runner.testing import reports

    unreached = reports.unreached(coverage) if coverage is not None else {}
    if style == "json":
        more = {} if coverage is None else {"coverage": {"percent": round(coverage.percent, 1), "unreached": unreached}}
        click.echo(reports.as_json(results, **more), nl=False)
        return
    if style == "github":
        click.echo(reports.as_github(results), nl=False)
    if coverage is not None:
        click.echo(f"reached: {int(coverage.percent)} %")
        for file, names in unreached.items():
            click.echo("".join(f"  {file}: {name}\n" for name in names), nl=False)
    echo_err(reports.summary(results))
