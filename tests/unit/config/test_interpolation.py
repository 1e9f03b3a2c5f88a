"""`${…}`: what it becomes, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.interpolation import interpolate, read_secret_file, substitute
from runner.config.loader import PipelineFile, load_text
from runner.config.yaml_parser import parse_yaml

ENVIRON = {"A": "alpha", "EMPTY": "", "NESTED": "${A}", "DOLLAR": "$$", "YAML": "x: [1]\n- y", "BAD": "a\udcff"}


def no_secrets(name: str) -> str:
    raise ValueError(f'there is no file "{name}"')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${A}", "alpha"),
        ("<${A}-${A}>", "<alpha-alpha>"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-amqp://u:p@h/?x=1}", "amqp://u:p@h/?x=1"),
        ("${A:-default}", "alpha"),
        ("${A:?needed}", "alpha"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$alpha"),
        ("$A costs 5$", "$A costs 5$"),
        ("^a$|b", "^a$|b"),
        ("${NESTED}", "${A}"),
        ("${DOLLAR}", "$$"),
        ("${YAML}", "x: [1]\n- y"),
    ],
)
def test_text_is_replaced_once(text: str, value: str) -> None:
    """A variable's value is taken as it is: never looked into again, never YAML."""
    done = substitute(text, ENVIRON, no_secrets)
    assert done.problems == []
    assert done.text == value


@pytest.mark.parametrize(
    ("text", "code", "message", "start", "length"),
    [
        ("${NONE}", "unset-variable", 'the variable "NONE" is not set', 0, 7),
        ("ab ${NONE}", "unset-variable", 'the variable "NONE" is not set', 3, 7),
        ("${NONE:?set me}", "unset-variable", 'the variable "NONE" is not set: set me', 0, 15),
        ("${EMPTY:?set me}", "unset-variable", 'the variable "EMPTY" is empty: set me', 0, 16),
        ("${NONE:?}", "unset-variable", 'the variable "NONE" is not set', 0, 9),
        ("${A", "bad-interpolation", 'this "${" is not closed', 0, 2),
        ("${}", "bad-interpolation", '"${}" is not an interpolation', 0, 3),
        ("${1A}", "bad-interpolation", '"${1A}" is not an interpolation', 0, 5),
        ("${A-x}", "bad-interpolation", '"${A-x}" is not an interpolation', 0, 6),
        ("${A:-${B}}", "bad-interpolation", "a ${…} cannot be inside another", 0, 9),
        ("${BAD}", "bad-interpolation", 'the variable "BAD" is not UTF-8 text', 0, 6),
        ("${file:/none}", "unreadable-secret", 'there is no file "/none"', 0, 13),
    ],
)
def test_what_has_no_value_is_a_fault_at_its_dollar(
    text: str, code: str, message: str, start: int, length: int
) -> None:
    """Each problem knows the characters it means."""
    (problem,) = substitute(text, ENVIRON, no_secrets).problems
    assert (problem.code, problem.message, problem.start, problem.length) == (code, message, start, length)


def test_every_unset_variable_of_a_text_is_reported() -> None:
    """One run tells all of them."""
    problems = substitute("amqp://${USER1}:${PASS1}@h", {}, no_secrets).problems
    assert [problem.start for problem in problems] == [7, 16]


def test_a_secret_file_is_read_without_its_last_line_break(tmp_path: Path) -> None:
    """Relative names start at the pipeline's folder."""
    (tmp_path / "secret").write_text("s3cret\n")
    assert read_secret_file("secret", tmp_path) == "s3cret"
    assert read_secret_file(str(tmp_path / "secret"), Path("/")) == "s3cret"


def test_what_is_not_a_small_text_file_is_no_secret(tmp_path: Path) -> None:
    """Folders, huge files and binary files are refused, and their content is not shown."""
    (tmp_path / "huge").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in (".", "none", "huge", "binary", "nul\0"):
        with pytest.raises(ValueError, match=r"file|null"):
            read_secret_file(name, tmp_path)


def test_a_variable_of_nearly_that_name_is_named() -> None:
    """But not one with another letter or number in its place."""
    environ = {"RABBIT_URL": "amqp://rabbit", "SHOP_A": "1"}
    rest = "set it in the environment or with --env-file, or write"
    assert loaded("version: 1\nname: ${SMTP_HOST}\n", {"SMTP_PORT": "25"}).problems[0].help.startswith("set it")
    for text, meant in (("${RABBITMQ_URL}", "did you mean ${RABBIT_URL}, which is set? If not, "), ("${SHOP_B}", "")):
        (problem,) = loaded(f"version: 1\nname: {text}\n", environ).problems
        assert problem.help == f"{meant}{rest} {text[:-1]}:-default}}"


def loaded(text: str, environ: dict[str, str] | None = None) -> PipelineFile:
    return load_text(text, Path("a.yaml"), environ or {})


HEAD = "version: 1\nsubscribers:\n  s:\n    from: q\n    handler: a:b\n"


def test_an_interpolated_value_is_typed_by_the_schema() -> None:
    """Numbers, booleans, short forms and durations, quoted or not."""
    text = HEAD + (
        '    concurrency: ${N:-16}\n    prefetch: "${P}"\n    timeout: ${T:-1}m\n    retry: ${R}\n'
        "    with: {limit: '${N:-16}'}\n"
        "logging: {payloads: '${L:-true}'}\nqueues: {q: {dead_letter: '${D:-false}', durable: '${B:-TRUE}'}}\n"
    )
    spec = loaded(text, {"P": "5", "R": "none"}).spec
    assert spec is not None
    subscriber = spec.subscribers["s"]
    assert (subscriber.concurrency, subscriber.prefetch, subscriber.timeout) == (16, 5, 60.0)
    assert subscriber.retry.attempts == 1
    assert subscriber.with_ == {"limit": "16"}
    assert type(subscriber.with_["limit"]) is str
    assert spec.logging.payloads is True
    assert spec.queues["q"].dead_letter is False
    assert spec.queues["q"].durable is True


def test_a_quoted_number_that_is_no_interpolation_is_an_error() -> None:
    """`"16"` is text, and the help says how to write the number."""
    (problem,) = loaded(HEAD + '    concurrency: "16"\n').problems
    assert problem.message == 'must be a whole number, not the text "16"'
    assert problem.help == "remove the quotes: 16"


def test_an_escaped_dollar_alone_is_no_interpolation() -> None:
    """Only variables and files are typed by the schema."""
    result = loaded(HEAD + "    description: costs 5$$\n")
    assert result.spec is not None
    assert result.spec.subscribers["s"].description == "costs 5$"
    assert result.interpolated == {}


def test_the_paths_of_interpolated_values_are_remembered(tmp_path: Path) -> None:
    """With the names of the variables and files, for `config --origin` and for masking."""
    (tmp_path / "p").write_text("x")
    text = HEAD + '    description: ${A} ${B:-b} ${A}\n    with: {k: ["${file:p}"]}\n'
    result = load_text(text, tmp_path / "a.yaml", {"A": "a"})
    assert result.interpolated == {
        ("subscribers", "s", "description"): ("A", "B"),
        ("subscribers", "s", "with", "k", 0): ("file:p",),
    }


def test_an_interpolated_value_is_not_shown_when_it_is_wrong() -> None:
    """It may be a secret that came to the wrong place."""
    (problem,) = loaded(HEAD + "    concurrency: ${N}\n", {"N": "s3cret"}).problems
    assert problem.message == "must be a whole number, not the value of ${N}"


@pytest.mark.parametrize(
    ("value", "line", "column"),
    [
        ("${NONE}", 6, 18),
        ("a ${NONE}", 6, 20),
        ('"a ${NONE}"', 6, 21),
        ("'a $${B} ${NONE}'", 6, 27),
        ("|\n      one\n      two ${NONE}", 8, 11),
        ('"a \\\n      b ${NONE}"', 7, 9),
        ('"\\x24{NONE}"', 6, 18),
    ],
)
def test_an_unset_variable_is_reported_where_its_dollar_is(value: str, line: int, column: int) -> None:
    """In plain, quoted and block scalars; where an escape hides the dollar, at the value."""
    (problem,) = loaded(HEAD + f"    description: {value}\n").problems
    assert (problem.code, problem.line, problem.column) == ("unset-variable", line, column)


def test_keys_and_unused_anchors_are_left_alone() -> None:
    """`x-…` values count only where something refers to them."""
    document, _ = parse_yaml("x-a: ${NONE}\nx-b: &b ${NONE}\nc: *b\n${KEY}: 1\n")
    problems = interpolate(document, {}, Path())
    assert [(problem.line, problem.column) for problem in problems] == [(2, 9)]


def test_an_anchored_value_is_reported_once() -> None:
    """However often it is used."""
    text = "version: 1\nx-a: &a ${NONE}\nlogging: {level: *a, format: *a}\n"
    assert [problem.code for problem in loaded(text).problems] == ["unset-variable"]


def test_variables_cannot_fill_the_memory() -> None:
    """A file that repeats one long variable is refused."""
    text = HEAD + "    description: " + "${A}" * 1000 + "\n"
    assert [problem.code for problem in loaded(text, {"A": "x" * 10_000}).problems] == ["too-large"]


def test_a_flood_of_faults_is_cut() -> None:
    """Unclosed and unset ones by the hundred thousand end quickly."""
    assert len(loaded(HEAD + "    description: '" + "${" * 200_000 + "'\n").problems) == 1
    assert len(loaded(HEAD + "    description: " + "${A}" * 100_000 + "\n").problems) <= 1000
