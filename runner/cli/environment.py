"""Environment variables, and the dotenv file of `--env-file` that adds to them."""

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
    """The dotenv file cannot be read, or a line is wrong. The message never quotes a line: it may contain a secret."""


class ProcessEnvironment:
    """The environment of this process, and the file of `--env-file` that adds to it. The file may be read again."""

    def __init__(self, env_file: Path | None) -> None:
        self.file = env_file
        self._own = dict(os.environ)
        self._added: set[str] = set()

    def fill(self) -> dict[str, str]:
        """Add the variables of the file, unless they are set without it; return the whole environment.

        Handlers' modules find them at import, and child processes inherit them. PYTHON* variables are left out: Python
        has read those at its start. Raises BadEnvironmentFile.
        """
        environ = _variables(self.file) | self._own
        added = {name for name in environ if name not in self._own and not name.startswith("PYTHON")}
        for name in self._added - added:
            os.environ.pop(name, None)
        os.environ.update({name: environ[name] for name in added})
        self._added = added
        return environ


def read_environment(env_file: Path | None) -> dict[str, str]:
    """Return the environment, with variables of the file that are not set there."""
    return _variables(env_file) | dict(os.environ)


def _variables(env_file: Path | None) -> dict[str, str]:
    return {} if env_file is None else parse_dotenv(_text(env_file), str(env_file))


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
    """Return the variables of NAME=value lines. `name` is the file's, for errors. Raises BadEnvironmentFile with every
    wrong line.
    """
    variables, wrong = {}, []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            wrong.append(f"{name}:{number}: {_advice(stripped)}")
            continue
        try:
            variables[match[1]] = _value(match[2], has_blank=match[0][match.start(2) - 1] != "=")
        except ValueError as error:
            wrong.append(f"{name}:{number}: {error}")
    if wrong:
        raise BadEnvironmentFile("\n".join(wrong))
    return variables


def _advice(line: str) -> str:
    """Return what is wrong with a line that is not NAME=value. Only its name is quoted."""
    named = re.match(r"(?:export\s+|set\s+)?(?!export\b)[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?\s*(?::|\s)", line)
    return f'there is no "=" after the name: write {named[1]}=…' if named else "not a NAME=value line"


def _value(text: str, *, has_blank: bool) -> str:
    """Return the value after the "=". Raises ValueError with a sentence."""
    if text[:1] in ("'", '"'):
        match = (_DOUBLE if text[0] == '"' else _SINGLE).fullmatch(text)
        if match is None:
            raise ValueError("the quote is not closed: a value must be on one line")
        if not _COMMENT.fullmatch(match[2]):
            raise ValueError('there is text after the closing quote: write \\" for a quote inside double quotes')
        return re.sub(r'\\(["\\])', r"\1", match[1]) if text[0] == '"' else match[1]
    if text.startswith("#") and not has_blank and text[1:2].strip():
        raise ValueError('a value that starts with "#" needs quotes; a comment needs a space before it')
    return "" if text.startswith("#") else re.split(r"\s#", text, maxsplit=1)[0].rstrip()
