"""Writes tests from real messages: `runner tap --record x.test.yaml` and `runner dead show --record x.test.yaml`.

A test is added at the end of an existing file, whose other lines stay as they are. What is written is read again before
it is stored, so that a file is never broken. Secrets are masked: values under keys such as `password`, passwords of
URLs, fields of pydantic's secret types, and what the pipeline's `redact` or `--redact` name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from inspect import Parameter
from pathlib import Path
from typing import Any, Final

from runner.config import limits
from runner.config.document import Document, MappingNode, Node, ScalarNode, plain_data
from runner.config.loader import PipelineFile
from runner.config.yaml_parser import parse_yaml
from runner.errors import PipelineInvalid, RunnerError
from runner.message import Address, Envelope
from runner.operations.dead_letters import DeadLetterMessage
from runner.operations.masking import MASK, is_from_secret, is_secret_name, may_be_secret_name
from runner.operations.pipeline_files import CheckedSpec
from runner.operations.yaml_writer import to_yaml
from runner.outcome import InvalidMessage
from runner.pipeline.codec import decoder
from runner.pipeline.model import Pipeline
from runner.pipeline.schemas import read_schema
from runner.pipeline.secret_values import secret_keys
from runner.pipeline.signature import payload_type
from runner.redaction import escape_line, mask_passwords
from runner.transports.failure_copies import foreign_headers

SUFFIXES: Final = (".test.yaml", ".test.yml")
MAX_MESSAGES: Final = 100
"""How many messages of a tap become one test: it is to be read by people."""

_decode = decoder(Parameter.empty)


class CannotRecord(RunnerError):
    """A message cannot be written as a test, or the file cannot be changed."""


@dataclass(frozen=True)
class RecordedTest:
    """A test: its name, a comment above it, and its keys."""

    name: str
    comment: str
    case: Mapping[str, Any]


@dataclass
class Recorder:
    """Turns messages of one pipeline into tests.

    `name` is the queue, event or subscriber whose messages they are, `paths` the parts of payloads to mask.
    """

    pipeline: Pipeline
    name: str
    paths: Sequence[str] = ()
    messages: list[dict[str, Any]] = field(default_factory=list)
    """The messages that were tapped."""

    def __post_init__(self) -> None:
        self._paths = [tuple(path.split(".")) for path in (*self.pipeline.redact, *self.paths)]
        types = [payload_type(subscriber) for subscriber in self.pipeline.subscribers]
        types += [read_schema(path)[0] for path in self.pipeline.schemas.values()]
        self._keys = frozenset[str]().union(*map(secret_keys, types))

    def tapped(self, envelope: Envelope, address: Address) -> bool:
        """Note a message that was tapped. Return whether it can be recorded."""
        to = self._event(address) or (self.name if self.name in self.pipeline.destinations else "")
        if len(self.messages) >= MAX_MESSAGES or not to:
            return False
        with contextlib.suppress(CannotRecord):
            self.messages.append(self._message(envelope, to))
            return True
        return False

    def test_of_tapped(self, now: datetime) -> RecordedTest:
        """Return the test of all messages that were tapped: nothing may fail."""
        comment = f"Recorded with `runner tap` at {now.isoformat(timespec='seconds')}."
        case = {"publish": self.messages, "expect": {"dead": "none"}}
        return RecordedTest(f"messages of {self.name} are handled", comment, case)

    def test_of_dead_letter(self, letter: DeadLetterMessage) -> RecordedTest:
        """Return the test that a dead letter is handled. Raises CannotRecord."""
        readers = [each for each in self.pipeline.subscribers if each.queue == letter.origin]
        event = self._event(Address(letter.exchange, letter.routing_key))
        to = event or (letter.origin if letter.origin in self.pipeline.destinations else None)
        if to is None or not readers:
            reason = f"no queue or event of the pipeline leads to {letter.claimed or 'its queue'}"
            raise CannotRecord(f"{letter.id} cannot be recorded: {reason}")
        expect: dict[str, Any] = {"dead": "none"}
        if len(readers) == 1:
            expect = {"handled": {readers[0].name: 1}, **expect}
        since = f" at {letter.since.isoformat(timespec='seconds')}" if letter.since else ""
        comment = f"Failed{since} with {letter.error_type or letter.reason}."  # the error's text may hold a secret
        case = {
            "only": [each.name for each in readers],
            "publish": [self._message(letter.envelope, to)],
            "expect": expect,
        }
        name = f"{' or '.join(each.name for each in readers)} handles {_plain(letter.id)}"
        return RecordedTest(name, comment, case)

    def _event(self, address: Address) -> str | None:
        found = (each.name for each in self.pipeline.destinations.values() if each.is_event and each.address == address)
        return next(found, None)

    def _message(self, envelope: Envelope, to: str) -> dict[str, Any]:
        """Return a message as a test publishes it. Raises CannotRecord."""
        who = envelope.message_id or "a message"
        try:
            payload = _decode(envelope)
        except InvalidMessage as error:
            raise CannotRecord(f"{who} cannot be recorded: {error}") from None
        if isinstance(payload, bytes):
            raise CannotRecord(f"{who} cannot be recorded: its body is neither JSON nor text")
        message = {"to": to, "payload": self._masked(payload, self._paths)}
        if envelope.message_id is not None:
            message["id"] = _plain(envelope.message_id)
        if headers := foreign_headers(envelope.headers):
            message["headers"] = self._masked(_plain(headers), [])
        return message

    def _masked(self, value: Any, paths: Sequence[tuple[str, ...]], *, is_secret: bool = False) -> Any:
        """Return a value with its secrets masked. A masked number is 0, so that the types of a payload stay."""
        if isinstance(value, dict):
            return {
                key: self._masked(
                    item,
                    [path[1:] for path in paths if path[:1] in ((key,), ("*",))],
                    is_secret=is_secret or is_secret_name(key) or key in self._keys or _ends(paths, key),
                )
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._masked(item, paths, is_secret=is_secret) for item in value]
        if not is_secret or value is None or isinstance(value, bool):
            return mask_passwords(value) if isinstance(value, str) else value
        return MASK if isinstance(value, str) else type(value)(0)


def _ends(paths: Sequence[tuple[str, ...]], key: str) -> bool:
    return any(len(path) == 1 and path[0] in (key, "*") for path in paths)


def _plain(value: Any) -> Any:
    """Return a header as data of YAML: times and bytes become text."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():  # invalid bytes are lone surrogates, which YAML cannot hold
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case bytes() | bytearray():
            return value.decode("utf-8", "backslashreplace")
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime():
            return value.isoformat()
    return str(value)


def file_of(specs: Sequence[CheckedSpec], pipeline: Pipeline) -> PipelineFile:
    """Return the file of a pipeline."""
    return next(loaded for loaded, _ in specs if str(loaded.path) == pipeline.path)


def write_test(file: Path, test: RecordedTest, loaded: PipelineFile, environ: Mapping[str, str]) -> str:
    """Add a test to a file, or create it, readable by its owner only. Return the test's name. Raises CannotRecord."""
    try:
        is_new = not file.exists()
        old = _empty_file(file, loaded, environ) if is_new else file.read_text("utf-8")
        text, name = _with_test(old, test, file)
        target = file if is_new else file.with_name(f".{file.name}.{os.getpid()}")
        # 0600: messages may be confidential, and the machine may have other users.
        with open(target, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(text)
        if not is_new:
            target.chmod(file.stat().st_mode)
            target.replace(file)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotRecord(f"{file} cannot be written: {reason.lower()}") from None
    return name


def _empty_file(file: Path, loaded: PipelineFile, environ: Mapping[str, str]) -> str:
    """Return the text of a test file for one pipeline, with the variables that the pipeline needs, and no test."""
    head: dict[str, Any] = {"version": 1, "pipelines": [os.path.relpath(loaded.path, file.parent)]}
    if variables := dict(_variables(loaded, environ)):
        head["env"] = variables
    return f"{to_yaml(head, has_variables=False)}tests:\n"


def _variables(loaded: PipelineFile, environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield the variables that a pipeline needs in a test, which needs no broker. Values of secrets are masked."""
    for path, names in loaded.interpolated.items():
        for name in names:
            if name in environ and path[0] != "broker":
                is_secret = is_from_secret([name]) or any(may_be_secret_name(str(key)) for key in path)
                yield name, MASK if is_secret else mask_passwords(environ[name])


def _with_test(text: str, test: RecordedTest, file: Path) -> tuple[str, str]:
    """Return the text of a test file with one more test after its last one, and its name. Raises CannotRecord."""
    document, nodes = _tests_of(text, file)
    name = _free_name(test.name, nodes)
    indent = " " * next((column for _, column in nodes.values()), 2)
    added = [f"# {escape_line(test.comment, 100)}", *to_yaml({name: test.case}, has_variables=False).splitlines()]
    lines = text.splitlines(keepends=True)
    end = _end_of_tests(document, lines)
    if not lines[end - 1].endswith(("\n", "\r")):
        lines[end - 1] += "\n"
    result = "".join([*lines[:end], *(f"{indent}{line}\n" for line in added), *lines[end:]])
    expected = {key: plain_data(node) for key, (node, _) in nodes.items()} | {name: test.case}
    try:
        found = {key: plain_data(node) for key, (node, _) in _tests_of(result, file)[1].items()}
    except CannotRecord as error:
        raise CannotRecord(f"with one more test, {error}", "record into another file") from None
    if found != expected:
        raise CannotRecord(f"{file} cannot get a test without a change of its others", "record into another file")
    return result, name


def _tests_of(text: str, file: Path) -> tuple[Document, dict[str, tuple[Node, int]]]:
    """Return a test file's document, and its tests by name with their indentation. Raises CannotRecord."""
    try:
        document, problems = parse_yaml(text, file, max_nodes=limits.MAX_SUITE_NODES)
    except PipelineInvalid as invalid:
        problems = list(invalid.problems)
    if problems:
        raise CannotRecord(f"{file} cannot be read: {problems[0].message}", "correct it, or record into another file")
    _, tests = document.root.nodes.get("tests", (None, None))
    if isinstance(tests, ScalarNode) and tests.value is None:
        return document, {}
    if not isinstance(tests, MappingNode) or not tests.is_block:
        raise CannotRecord(f"{file} has no `tests:` with a test on lines of its own", "record into another file")
    return document, {name: (node, span.column - 1) for name, (span, node) in tests.nodes.items()}


def _end_of_tests(document: Document, lines: Sequence[str]) -> int:
    """Return the number of the last line of the tests: those of the next key, and comments above it, come after it."""
    first = document.root.nodes["tests"][0].line
    following = [span.line - 1 for span, _ in document.root.nodes.values() if span.line > first]
    end = min(following, default=len(lines))
    while end > first and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _free_name(name: str, taken: Collection[str]) -> str:
    """Return a name that no test has: the name, or the name with a number."""
    candidates = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)
