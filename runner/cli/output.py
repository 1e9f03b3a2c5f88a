"""How commands end: errors on stderr, problems as diagnostics, and the exit code that belongs to each."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import click

from runner.errors import PipelineInvalid, Problem, RunnerError

Format = Literal["full", "concise", "json"]

EXIT_BUG = 70
EXIT_OUTPUT_LOST = 1


def wants_color(stream_is_terminal: bool) -> bool:
    """Whether to colour: never with NO_COLOR, always with FORCE_COLOR, else only on a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream_is_terminal


def echo_err(text: str, *, is_colored: bool | None = None, ends_line: bool = True) -> None:
    """Write to stderr, if it can be written to: nothing ends or fails because nobody hears of it."""
    with suppress(OSError):
        click.echo(text, err=True, color=is_colored, nl=ends_line)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn what we raise on purpose into words on stderr and the right exit code."""
    try:
        yield
    except PipelineInvalid as invalid:
        echo_problems(invalid.problems)
        sys.exit(invalid.exit_code)
    except RunnerError as error:
        echo_error(str(error), error.hint)
        sys.exit(error.exit_code)


def echo_problems(problems: Sequence[Problem]) -> None:
    """Write problems to stderr, in full, with their count."""
    from runner.config import diagnostics

    if problems:
        echo_err(diagnostics.full(problems, colour=wants_color(sys.stderr.isatty())), is_colored=True, ends_line=False)
        echo_err(diagnostics.count(problems))


def echo_error(message: str, hint: str = "") -> None:
    """Write an error and its hint to stderr."""
    from runner.redaction import mask_passwords

    message, hint = mask_passwords(message), mask_passwords(hint)
    is_colored = wants_color(sys.stderr.isatty())
    label = click.style("error", fg="red", bold=True) if is_colored else "error"
    lines = message.splitlines() or [""]
    echo_err(f"{label}: {lines[0]}", is_colored=is_colored)
    for line in lines[1:]:
        echo_err(f"       {line}")
    if hint:
        echo_err(f"  = help: {hint}")


def echo_output_lost(error: OSError) -> int:
    """Say that standard output cannot be written; return the exit code."""
    echo_error(f"standard output cannot be written: {(error.strerror or str(error)).lower()}")
    return EXIT_OUTPUT_LOST


def echo_bug() -> int:
    """Write the current exception's traceback and what to do with it; return the exit code for a bug of ours."""
    from runner.redaction import mask_passwords

    echo_err(mask_passwords(traceback.format_exc()))
    echo_error("this is a bug in runner", "please report it, with the lines above and the output of `runner --version`")
    return EXIT_BUG
