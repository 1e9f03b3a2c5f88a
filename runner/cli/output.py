"""What verbs write to stderr, and the exit codes they end with."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click

from runner.errors import PipelineInvalid, Problem, RunnerError

EXIT_OUTPUT_LOST = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def wants_color(is_terminal: bool) -> bool:
    """Whether to colour: never with NO_COLOR, always with FORCE_COLOR, otherwise only on a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal


def echo_err(text: str, *, is_colored: bool | None = None, ends_line: bool = True) -> None:
    """Write to stderr. A stderr that is closed or full is ignored: messages to people never fail the work."""
    with suppress(OSError):
        click.echo(text, err=True, color=is_colored, nl=ends_line)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Write a RunnerError to stderr, problems in full, and exit with its code."""
    try:
        yield
    except RunnerError as error:
        echo_failure(error)
        sys.exit(error.exit_code)


def echo_failure(error: RunnerError) -> None:
    """Write a RunnerError to stderr, problems in full."""
    if isinstance(error, PipelineInvalid):
        echo_problems(error.problems)
    else:
        echo_error(str(error), error.hint)


def echo_problems(problems: Sequence[Problem]) -> None:
    """Write problems to stderr, in full, with their count."""
    from runner.config import diagnostics

    if problems:
        echo_err(diagnostics.full(problems, colour=wants_color(sys.stderr.isatty())), is_colored=True, ends_line=False)
        echo_err(diagnostics.count(problems))
        echo_err(diagnostics.next_steps(problems))


def echo_error(message: str, hint: str = "") -> None:
    """Write an error and its hint to stderr, passwords masked."""
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


class BadValue(click.BadParameter):
    """A value that an option does not take, with what to write instead.

    With `by`, the help is the command line with these words in place of the value: `word`, if that is not the value of
    the option. Options also take the place of its option, and [] leaves it out. `hint` and `after` stand beside it.
    """

    def __init__(
        self,
        message: str,
        hint: str = "write",
        label: str | None = None,
        *,
        word: str = "",
        by: Sequence[str] | None = None,
        after: str = "",
    ) -> None:
        super().__init__(message, param_hint=label)
        self.hint, self.word, self.by, self.after = hint, word, by, after


def write_file(path: Path, text: str, option: str) -> None:
    """Write a text to the file that an option names. Raises BadValue."""
    check_output(path, text, option)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise cannot_write(path, error, option) from None


def cannot_write(path: Path, error: OSError, option: str) -> BadValue:
    """Return the error for a file that cannot be written."""
    hint = "write to a place that is yours"
    if not path.parent.exists():
        import shlex

        hint = f"make its folder: mkdir -p {shlex.quote(str(path.parent))}"
    return BadValue(f"cannot write {path}: {(error.strerror or str(error)).lower()}", hint, option)


def check_output(path: Path, text: str, option: str) -> None:
    """Raise BadValue if a file has something else in it than an earlier output that begins as `text` does."""
    try:
        present = path.read_text("utf-8", "replace") if path.is_file() else ""
    except OSError:  # writing says why
        return
    if present.strip() and _beginning(present) != _beginning(text):
        raise BadValue(f"{path} is there already, with something else in it", "choose another name", option)


def _beginning(text: str) -> str:
    """Return the first key or word of a text, whatever comments stand before it."""
    lines = re.sub(r"^\s*(#.*)?\n", "", text, flags=re.MULTILINE)
    found = re.match(r'[\s{]*("[^"]*"|[^\s:=]+)', lines)
    return found[0].translate(_NO_BLANKS) if found else ""


_NO_BLANKS = str.maketrans("", "", " \n\r\t")


def echo_output_lost(error: OSError) -> int:
    """Write that standard output cannot be written; return the exit code."""
    echo_error(f"standard output cannot be written: {(error.strerror or str(error)).lower()}")
    return EXIT_OUTPUT_LOST


def echo_bug() -> int:
    """Write the current exception's traceback and where to report it; return the exit code."""
    from runner.redaction import mask_passwords

    echo_err(mask_passwords(traceback.format_exc()))
    echo_error("this is a bug in runner", "please report it, with the lines above and the output of `runner --version`")
    return EXIT_BUG


def write_stderr(text: str) -> None:
    """Write to stderr from a signal handler, which may have interrupted another write."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def drain_when_output_lost(error: OSError) -> None:
    """Start the drain when the reader of the log has gone, as after `| head`: unseen work helps no one.

    A full disk is different, because it may pass: lines are left out as long as it lasts.
    """
    write_stderr(f"log lines cannot be written ({error.strerror})")
    if isinstance(error, BrokenPipeError):
        os.kill(os.getpid(), signal.SIGTERM)


def exit_process(code: int) -> NoReturn:
    """Flush and end the process, whatever still runs in it: everything is cleaned up by now."""
    from runner import log

    log.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # handlers may have closed or replaced it
            stream.flush()
    os._exit(code)
