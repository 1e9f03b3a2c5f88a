"""The process's environment, and the dotenv file that fills it up."""

from __future__ import annotations

import os
import re
from pathlib import Path

MAX_BYTES = 1024**2

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[^\S\n]*(.*)", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"(.*)', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'(.*)", re.DOTALL)
_COMMENT = re.compile(r"\s+#.*|\s*", re.DOTALL)


class BadEnvironmentFile(ValueError):
    """The dotenv file cannot be read, or a line of it is wrong. What stands there is never quoted: it may be secret."""


def fill_environment(env_file: Path | None) -> dict[str, str]:
    """Put the variables of a file into the environment of this process, where it has none; return the whole.

    So modules of handlers find them at import, and so do the processes that are started from here. What Python itself
    reads at its start (PYTHONPATH and the like) would come too late, and is left out. Raises BadEnvironmentFile.
    """
    environ = read_environment(env_file)
    for name, value in environ.items():
        if not name.startswith("PYTHON"):
            os.environ.setdefault(name, value)
    return environ


def read_environment(env_file: Path | None) -> dict[str, str]:
    """Return the environment's variables, with those of the file where the environment has none."""
    variables = {} if env_file is None else parse_dotenv(_text(env_file), str(env_file))
    return variables | dict(os.environ)


def _text(env_file: Path) -> str:
    try:
        with env_file.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadEnvironmentFile(f"{env_file} cannot be read: {(error.strerror or 'unknown').lower()}") from None
    if len(content) > MAX_BYTES:
        raise BadEnvironmentFile(f"{env_file} is larger than {MAX_BYTES // 1024**2} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 of ASCII text is valid UTF-8 otherwise
        raise BadEnvironmentFile(f"{env_file} is not UTF-8 text: save it in the encoding UTF-8")
    return text


def parse_dotenv(text: str, name: str) -> dict[str, str]:
    """Return the variables of NAME=value lines. Raises BadEnvironmentFile."""
    variables = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise BadEnvironmentFile(f"{name}:{number}: not a NAME=value line")
        try:
            variables[match[1]] = _value(match[2], has_blank=match[0][match.start(2) - 1] != "=")
        except ValueError as error:
            raise BadEnvironmentFile(f"{name}:{number}: {error}") from None
    return variables


def _value(text: str, *, has_blank: bool) -> str:
    """Return the value that stands behind the "=". Raises ValueError with a sentence."""
    if text[:1] in ("'", '"'):
        match = (_DOUBLE if text[0] == '"' else _SINGLE).fullmatch(text)
        if match is None:
            raise ValueError("the quote is not closed: a value stands on one line")
        if not _COMMENT.fullmatch(match[2]):
            raise ValueError('there is text behind the closing quote: write \\" for a quote inside of double quotes')
        return re.sub(r'\\(["\\])', r"\1", match[1]) if text[0] == '"' else match[1]
    if text.startswith("#") and not has_blank and text[1:2].strip():
        raise ValueError('a value that starts with "#" needs quotes, and a comment a blank in front of it')
    return "" if text.startswith("#") else re.split(r"\s#", text, maxsplit=1)[0].rstrip()
