"""Replaces `${…}` in the scalars of a document by the values of variables and secret files, in place.

This happens after parsing, so a value never becomes YAML. Keys are not interpolated, nor are the values themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.config import limits
from runner.config.document import (
    Document,
    Interpolated,
    KeyPath,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    dotted_path,
)
from runner.config.messages import typo_of
from runner.config.yaml_parser import is_file
from runner.errors import Problem

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)(.*))?", re.DOTALL)
_OF_A_MESSAGE = (
    'write the names, as in `to: [orders_eu, orders_us]`, and let the handler return `Publish(…, to="NAME")`'
)
_OTHER_FORM = re.compile(r"(?:env[.:])?\s*([A-Z_][A-Z0-9_]*)\s*(?:(?::?[-=|]|[:|])(?![+?])\s*([^$}]*[^$}A-Z_][^$}]*))?")
"""`${NAME-default}` of the shell, `${NAME:default}` of Spring, `${env:NAME}` and `${ NAME }`."""
_TEMPLATE = re.compile(
    r"\$?\{\{(?P<mustache>.*?)\}\}|<%=?(?P<erb>.*?)%>|\$\((?P<make>[A-Z][A-Z0-9_]*)\)"
    r"|%\((?P<python>\w+)\)s|[#]\{(?P<ruby>[^}]*)\}|(?<!\w)@@?(?P<ant>[A-Z][A-Z0-9_.]*)@@?"
)
_WINDOWS_VARIABLE = re.compile(r"%([A-Z_][A-Z0-9_]*)%")
_PLACEHOLDER = re.compile(r"<[\w -]+>")
_BARE_VARIABLE = re.compile(r"(?<!\$)\$([A-Za-z_]\w*)")
_WHOLE_VARIABLE = re.compile(r"\$[A-Z_][A-Z0-9_]*")
FREE_KEYS = frozenset({"description", "owner", "release", "with", "arguments", "headers", "levels", "password"})
"""Keys whose values may be any text, so a dollar or braces in them may be meant."""

_FORMS = "write ${NAME}, ${NAME:-default}, ${NAME:?message}, ${file:/path}, or $$ for a dollar"

ReadSecret = Callable[[str], str]
"""Returns the content of a secret file by the name in `${file:…}`. Raises ValueError with the error message."""


@dataclass(frozen=True, slots=True)
class SubstitutionProblem:
    """An error in one `${…}`, with its start and length in the text."""

    code: str
    message: str
    help: str
    start: int
    length: int


@dataclass(slots=True)
class Substitution:
    """A text with its `${…}` replaced, the names of the variables and files, and the problems."""

    text: str = ""
    origins: tuple[str, ...] = ()
    problems: list[SubstitutionProblem] = field(default_factory=list)


class UnplacedError(Exception):
    """An error in a `${…}` or an `include`, raised where its position is not known."""

    def __init__(self, code: str, message: str, help_: str) -> None:
        super().__init__(message)
        self.code, self.message, self.help = code, message, help_


def substitute(text: str, environ: Mapping[str, str], read_secret: ReadSecret) -> Substitution:
    """Replace every `${…}` in a text."""
    done = Substitution()
    pieces: list[str] = []
    origins: dict[str, None] = {}
    position = size = 0

    def report(code: str, message: str, help_: str, length: int) -> None:
        done.problems.append(SubstitutionProblem(code, message, help_, dollar, length))

    while (dollar := text.find("$", position)) >= 0:
        pieces.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        position = dollar + 2
        if following != "{":
            pieces.append("$" if following == "$" else "$" + following)
            continue
        end = text.find("}", dollar)
        if end < 0:
            report("bad-interpolation", 'this "${" is not closed', 'add "}"', 2)
            break
        position = end + 1
        try:
            value, origin = _value(text[dollar + 2 : end], environ, read_secret)
        except UnplacedError as error:
            report(error.code, error.message, error.help, position - dollar)
            continue
        size += len(value)
        if size > limits.MAX_INTERPOLATED_CHARACTERS:
            report("too-large", "the values of the variables here are too long", "", position - dollar)
            break
        pieces.append(value)
        origins[origin] = None
    pieces.append(text[position:])
    done.text, done.origins = "".join(pieces), tuple(origins)
    return done


def _value(body: str, environ: Mapping[str, str], read_secret: ReadSecret) -> tuple[str, str]:
    """Return the value and the name of the variable or file between `${` and `}`."""
    if "${" in body:
        raise UnplacedError("bad-interpolation", "a ${…} cannot be inside another", _FORMS)
    if body.startswith("file:"):
        return _secret(body, read_secret), body
    match = _VARIABLE.fullmatch(body)
    if match is None:
        if body.startswith("!"):
            what = f'"${{{body[:60]}}}" is of Redpanda Connect: no value of the file comes from a message'
            raise UnplacedError("bad-interpolation", what, _OF_A_MESSAGE)
        other = _OTHER_FORM.fullmatch(body.strip())
        default = f":-{other[2]}" if other and other[2] else ""
        help_ = f"write ${{{other[1]}{default}}}" if other else _FORMS
        raise UnplacedError("bad-interpolation", f'"${{{body[:60]}}}" is not an interpolation', help_)
    name, operator, rest = match.groups()
    value = environ.get(name)
    if value is not None and (value or operator is None):
        return _checked(name, value), name
    if operator == ":-":
        return rest, name
    state = "not set" if value is None else "empty"
    if operator == ":?" and rest:
        raise UnplacedError("unset-variable", f'the variable "{name}" is {state}: {rest}', "set it in the environment")
    near = _near(name, environ) if value is None else None
    help_ = f"did you mean ${{{near}}}, which is set? If not, " if near else ""
    help_ += f"set it in the environment or with --env-file, or write ${{{name}:-default}}"
    help_ += f", or $${{{name}}} for this text itself" if name.islower() else ""
    raise UnplacedError("unset-variable", f'the variable "{name}" is {state}', help_)


def _near(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the variable that a name may misspell: not `SHOP_B` for `SHOP_A`."""
    near = typo_of(name, environ)
    pairs = zip(name.split("_"), (near or "").split("_"), strict=False)
    others = [sorted(pair, key=len) for pair in pairs if pair[0] != pair[1]]
    is_alike = all(len(short) > 3 and (long.startswith(short) or typo_of(long, [short])) for short, long in others)
    return near if is_alike else None


def _checked(name: str, value: str) -> str:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UnplacedError("bad-interpolation", f'the variable "{name}" is not UTF-8 text', "set it to text")
    return value


def _secret(body: str, read_secret: ReadSecret) -> str:
    try:
        return read_secret(body.removeprefix("file:"))
    except ValueError as error:
        raise UnplacedError("unreadable-secret", str(error), "check the name and permissions") from None


def read_secret_file(name: str, folder: Path) -> str:
    """Return the content of a secret file without a final line break. A relative name is relative to `folder`.

    Raises ValueError with a message that never shows the content.
    """
    try:
        path = folder / name
        if not is_file(path):  # a pipe would block
            raise ValueError(f'there is no file "{name}"')
        with path.open("rb") as file:
            content = file.read(limits.MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f'the file "{name}" cannot be read: {(error.strerror or "").lower()}') from None
    if len(content) > limits.MAX_SECRET_BYTES:
        raise ValueError(f'the file "{name}" is larger than {limits.MAX_SECRET_BYTES // 1024} KiB')
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f'the file "{name}" is not UTF-8 text') from None


def interpolate(document: Document, environ: Mapping[str, str], folder: Path) -> list[Problem]:
    """Replace every `${…}` in a document. Return the problems.

    Top-level `x-…` keys, which hold anchors, are skipped, unless an alias refers to them.
    """
    return Interpolation(environ).interpolate(document, folder)


class Interpolation:
    """Interpolates the documents of one pipeline, which share the limits. A shared node is interpolated once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.broken: list[tuple[Node, Problem]] = []
        """The problems of the last document, with their nodes."""
        self._environ = environ
        self._size = 0

    def interpolate(self, document: Document, folder: Path) -> list[Problem]:
        """Interpolate one more document, like `interpolate()`."""
        work = _Pass(document, self._environ, folder, self._size)
        for key, (_, node) in document.root.nodes.items():
            if not key.startswith("x-"):
                work.visit(node, (key,))
        self._size = work.size
        self.broken = work.broken
        return [problem for _, problem in work.broken]


class _Pass:
    """One pass over the nodes of a document. `size` counts the characters of all values so far."""

    def __init__(self, document: Document, environ: Mapping[str, str], folder: Path, size: int) -> None:
        self.broken: list[tuple[Node, Problem]] = []
        self.size = size
        self._document = document
        self._environ = environ
        self._folder = folder
        self._seen: set[int] = set()

    def visit(self, node: Node, path: KeyPath) -> None:
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, MappingNode):
            for key, (span, child) in node.nodes.items():
                if _TEMPLATE.search(key) and not FREE_KEYS & {*path}:
                    message, help_ = "templates with {{ }} are not filled in", "write the name itself"
                    problem = span.problem("bad-interpolation", message, help_, path=dotted_path(path))
                    self.broken.append((child, problem))
                self.visit(child, (*path, key))
        elif isinstance(node, SequenceNode):
            for index, child in enumerate(node.nodes):
                self.visit(child, (*path, index))
        elif isinstance(node.value, str) and any(sign in node.value for sign in ("$", "{{", "<", "%", "#{", "@")):
            if not FREE_KEYS & {*path} or ("with" in path and _WHOLE_VARIABLE.fullmatch(node.value)):
                self._check_templates(node, node.value, path)
            if not any(broken is node for broken, _ in self.broken[-1:]):
                self._scalar(node, node.value, path)

    def _check_templates(self, node: ScalarNode, text: str, path: KeyPath) -> None:
        """Report the variables of other tools: `{{ name }}`, and `$NAME` without braces."""
        if template := _TEMPLATE.search(text):
            signs = {
                "mustache": "{{ }}",
                "erb": "<% %>",
                "make": "$( )",
                "python": "%( )s",
                "ruby": "#{ }",
                "ant": "@ @",
            }[str(template.lastgroup)]
            message = f"templates with {signs} are not filled in"
            help_ = f'write "{_TEMPLATE.sub(_variable, text)[:80]}" for a variable of the environment'
        elif windows := _WINDOWS_VARIABLE.fullmatch(text):
            message = f"{text} is not replaced: that is how Windows writes a variable"
            help_ = f'write "${{{windows[1]}}}" for the variable'
        elif _PLACEHOLDER.fullmatch(text):
            message, help_ = f"{text} is a placeholder", "write a value of your own in its place"
        elif (bare := _BARE_VARIABLE.search(text)) and "://" not in text:
            message = f'"{bare[0]}" is not replaced: a variable needs braces'
            help_ = f'write "${{{bare[1]}}}" for the variable'
            if path[0] not in ("producers", "subscribers") or "with" in path:  # the others are names without a dollar
                help_ += f', or "${bare[0]}" for a text that starts with a dollar'
        else:
            return
        node.is_broken = True
        problem = node.span.problem("bad-interpolation", message, help_, path=dotted_path(path))
        self.broken.append((node, problem))

    def _scalar(self, node: ScalarNode, text: str, path: KeyPath) -> None:
        done = substitute(text, self._environ, lambda name: read_secret_file(name, self._folder))
        self.size += len(done.text) if done.origins else 0
        if self.size > limits.MAX_INTERPOLATED_CHARACTERS:
            done.problems.append(
                SubstitutionProblem("too-large", "the values of all variables together are larger than 1 MiB", "", 0, 1)
            )
        node.is_broken = node.is_broken or bool(done.problems)
        node.origins = done.origins
        node.value = Interpolated(done.text, _expression(done.origins)) if done.origins else done.text
        for problem in done.problems[: limits.MAX_PROBLEMS - len(self.broken)]:
            self.broken.append((node, self._problem(node, text, problem, path)))

    def _problem(self, node: ScalarNode, text: str, problem: SubstitutionProblem, path: KeyPath) -> Problem:
        start = self._index(node, text, problem.start)
        span = self._document.lines.span(start, start + problem.length) if start is not None else node.span
        return span.problem(problem.code, problem.message, problem.help, path=dotted_path(path))

    def _index(self, node: ScalarNode, text: str, start: int) -> int | None:
        """Return the index in the file of the dollar at `start` in a scalar, None if escapes make that unknown."""
        written = self._document.text[node.start : node.end]
        if written.count("$") != text.count("$"):
            return None
        index = -1
        for _ in range(text.count("$", 0, start) + 1):
            index = written.find("$", index + 1)
        return node.start + index if index >= 0 else None


def _variable(template: re.Match[str]) -> str:
    """Return the variable that a template such as `{{ .Values.url | default "x" }}` means: `${URL:-x}`."""
    expression, _, filters = template[str(template.lastgroup)].partition("|")
    name = (re.findall(r"[A-Za-z_]\w*", expression) or ["NAME"])[-1].upper()
    default = re.search(r"\bdefault[\s(]+[\"']?([^\"'|)]*)", filters)
    return f"${{{name}{f':-{default[1].strip()}' if default else ''}}}"


def _expression(origins: tuple[str, ...]) -> str:
    return " and ".join(f"${{{origin}}}" for origin in origins)
