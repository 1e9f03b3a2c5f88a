"""Turns the process's environment, and a dotenv file below it, into the variables for interpolation."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runner.errors import RunnerError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


class BadEnvironmentFile(RunnerError):
    """A line of the dotenv file is not NAME=value."""

    exit_code = 2


def read_environment(env_file: Path | None) -> dict[str, str]:
    """Return the environment's variables, with those of the file where the environment has none."""
    variables = {} if env_file is None else parse_dotenv(env_file.read_text("utf-8"), str(env_file))
    return variables | dict(os.environ)


def parse_dotenv(text: str, name: str) -> dict[str, str]:
    """Return the variables of NAME=value lines. Comments, `export` and quotes are understood; nothing is expanded."""
    variables = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise BadEnvironmentFile(f"{name}:{number}: not a NAME=value line")
        variables[match[1]] = _value(match[2])
    return variables


def _value(text: str) -> str:
    for quote in ('"', "'"):
        if text.startswith(quote) and (end := text.find(quote, 1)) > 0:
            return text[1:end]
    return text.partition(" #")[0].strip()
